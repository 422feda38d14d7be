"""`dynamicid workspace`: the clone of the repository in which one run works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import NewFolder, RunId, argument, command_group, option
from pipelines.commands.output import emit
from pipelines.versions import workspace as workspaces

app = command_group("Create, save and restore the clone of the repository in which one run works.")

Home = Annotated[Path, option("Checkout to clone.", metavar="DIR", envvar="DYNAMICID_HOME")]


@app.command()
def create(run_id: RunId, home: Home = Path()) -> None:
    """Create the workspace of a run, or find it; print its path as the last line."""
    folder = str(workspaces.create(home, run_id).path)
    emit({"workspace": folder}, folder)


@app.command()
def save(run_id: RunId, home: Home = Path()) -> None:
    """Save the run as a DVC experiment of the checkout; print its name as the last line."""
    name = workspaces.save(home, run_id)
    emit({"experiment": name}, name)


@app.command()
def restore(run: Annotated[str, argument("Id or name of the run.")], out: NewFolder, home: Home = Path()) -> None:
    """Restore a saved run to a new folder, where `dvc repro` has nothing left to do."""
    folder = str(workspaces.restore(home, run, out))
    emit({"workspace": folder}, folder)
