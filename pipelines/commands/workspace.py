"""`dynamicid workspace`: a run's own clone: create, save what it made, restore it elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import argument, option
from pipelines.commands.output import emit

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True)

RunId = Annotated[str, option("The scheduler's id of the run.", "--run-id", envvar="DYNAMICID_AIRFLOW_RUN_ID")]
Home = Annotated[Path, option("The checkout to clone from.", envvar="DYNAMICID_HOME")]


@app.command()
def create(run_id: RunId, home: Home = Path()) -> None:
    """Make (or find) the workspace of a run; its path is the last line of stdout."""
    from pipelines.versions.workspace import create as make

    _tell(make(home, run_id).path)


@app.command()
def save(run_id: RunId, home: Home = Path()) -> None:
    """Save the run as a DVC experiment in the checkout; its name is the last line of stdout."""
    from pipelines.versions.workspace import save as keep

    name = keep(home, run_id)
    emit({"experiment": name}, name)


@app.command()
def restore(
    run: Annotated[str, argument("The run's id or name.")],
    out: Annotated[Path, option("A folder that does not exist yet.")],
    home: Home = Path(),
) -> None:
    """Bring back a saved run: `dvc repro` in the new folder has nothing left to do."""
    from pipelines.versions.workspace import restore as bring_back

    _tell(bring_back(home, run, out))


def _tell(folder: Path) -> None:
    emit({"workspace": str(folder)}, str(folder))
