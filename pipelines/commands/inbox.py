"""`dynamicid inbox`: new photos into the dataset, by the rules of pipelines/operations/inbox/protocol.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import DEFAULT_PARAMS, ParamsFile

if TYPE_CHECKING:
    from pipelines.operations.inbox.protocol import Inbox

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True)

Address = Annotated[
    str, typer.Option("--inbox", help="Folder or object-store prefix.", envvar="DYNAMICID_INBOX", metavar="URL")
]
RunId = Annotated[
    str,
    typer.Option("--run-id", help="Who takes it: the scheduler's id of the run.", envvar="DYNAMICID_AIRFLOW_RUN_ID"),
]
_SCRATCH = Path(".dynamicid/inbox")


@app.command()
def ready(inbox: Address = ".dynamicid/inbox", params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Print which batches are ready and which wait, with the reason, as JSON."""
    batches = _open(inbox, params).batches()
    told = {
        "ready": [batch.name for batch in batches if batch.waits is None],
        "waiting": {batch.name: batch.waits for batch in batches if batch.waits is not None},
    }
    typer.echo(json.dumps(told))


@app.command()
def take(run_id: RunId, inbox: Address, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Take every ready batch for a run and set unreadable photos aside; print what was taken as JSON."""
    from pipelines.core.params import load_params
    from pipelines.operations.inbox.reading import local_batches, unreadable

    box = _open(inbox, params)
    names = box.take(run_id)
    batches = local_batches(box, run_id, _SCRATCH)
    reasons = unreadable(batches, load_params(params).preprocess.max_pixels)
    box.set_aside(run_id, reasons)
    for file, reason in reasons.items():
        typer.echo(f"{file}: {reason}; set aside", err=True)
    if not box.is_folder:
        for file in reasons:
            (_SCRATCH / file).unlink(missing_ok=True)
    typer.echo(f"{len(names)} batches taken, {len(reasons)} photos set aside", err=True)
    typer.echo(json.dumps({"batches": names, "bad": reasons}))


@app.command()
def add(
    run_id: RunId,
    inbox: Address,
    out: Annotated[Path, typer.Option(help="Dataset folder that is added to.", metavar="DIR")] = Path("data/faces"),
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Add the photos that a run took to the dataset, which gets no version yet; print the counts as JSON."""
    from pipelines.core.params import load_params
    from pipelines.data.ingest.found import is_picture_name
    from pipelines.operations.inbox.reading import local_batches
    from pipelines.stages.ingest import Inputs, Outputs, run

    given = load_params(params)
    counts = {}
    for name, folder in local_batches(_open(inbox, params), run_id, _SCRATCH).items():
        pictures = [file for file in folder.rglob("*") if is_picture_name(file.name)]
        if not pictures and not any(folder.rglob("*.tar")) and not any(folder.rglob("*.parquet")):
            typer.echo(f"{name}: no readable photo is left in it", err=True)
            continue
        counts[name] = run(given, Inputs(folder), Outputs(out)).new_rows
        typer.echo(f"{name}: {counts[name]} new photos", err=True)
    typer.echo(json.dumps(counts))


@app.command()
def done(run_id: RunId, inbox: Address, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Move what a run took to where finished batches are kept."""
    typer.echo(_open(inbox, params).finish(run_id))
    shutil.rmtree(_SCRATCH, ignore_errors=True)


@app.command()
def refuse(
    run_id: RunId,
    inbox: Address,
    reason: Annotated[str, typer.Option(help="Why; stands beside every file in the list.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Move what a run took to where bad batches are kept, with the reason."""
    typer.echo(_open(inbox, params).finish(run_id, refused=reason))


def _open(address: str, params: Path) -> Inbox:
    from pipelines.core.params import load_params
    from pipelines.operations.inbox.protocol import Inbox as Box

    return Box(address, load_params(params).inbox.quiet_seconds)
