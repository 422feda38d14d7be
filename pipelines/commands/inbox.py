"""`dynamicid inbox`: new photos into the dataset, by the rules of pipelines/operations/inbox/protocol.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import DEFAULT_PARAMS, ParamsFile, SkipCode, option
from pipelines.commands.output import emit, say
from pipelines.core.chain import FACES, VERDICT
from pipelines.core.errors import StageFailed

if TYPE_CHECKING:
    from pipelines.operations.inbox.protocol import Inbox

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True)

Address = Annotated[str, option("Folder or object-store prefix.", "--inbox", envvar="DYNAMICID_INBOX", metavar="URL")]
RunId = Annotated[
    str, option("Who takes it: the scheduler's id of the run.", "--run-id", envvar="DYNAMICID_AIRFLOW_RUN_ID")
]
_SCRATCH = Path(".dynamicid/inbox")
# What was published is kept beside the data: a retry must still tell of a version that it made before.
_PUBLISHED = Path(".dynamicid/published.json")


@app.command()
def ready(inbox: Address = ".dynamicid/inbox", params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Print which batches are ready and which wait, with the reason, as JSON."""
    batches = _open(inbox, params).batches()
    told = {
        "ready": [batch.name for batch in batches if batch.wait_reason is None],
        "waiting": {batch.name: batch.wait_reason for batch in batches if batch.wait_reason is not None},
    }
    emit(told)


@app.command()
def take(run_id: RunId, inbox: Address, params: ParamsFile = DEFAULT_PARAMS, skip_code: SkipCode = 0) -> None:
    """Take every ready batch for a run and set unreadable photos aside; print what was taken as JSON."""
    from pipelines.core.params import load_params
    from pipelines.operations.inbox.reading import local_batches, unreadable

    box = _open(inbox, params)
    names = box.take(run_id)
    batches = local_batches(box, run_id, _SCRATCH)
    reasons = unreadable(batches, load_params(params).preprocess.max_pixels)
    box.set_aside(run_id, reasons)
    for file, reason in reasons.items():
        say(f"{file}: {reason}; set aside")
    if not box.is_folder:
        for file in reasons:
            (_SCRATCH / file).unlink(missing_ok=True)
    say(f"{len(names)} batches taken, {len(reasons)} photos set aside")
    emit({"batches": names, "bad": reasons})
    if not names:
        say("nothing is ready, or somebody else took it")
        raise typer.Exit(skip_code)


@app.command()
def add(
    run_id: RunId,
    inbox: Address,
    out: Annotated[Path, option("Dataset folder that is added to.", metavar="DIR")] = Path(FACES),
    latest: Annotated[bool, option("Begin with the newest dataset version, whatever is here.", "--latest")] = False,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Add the photos that a run took to the dataset, which gets no version yet; print the counts as JSON."""
    from pipelines.commands.dataset import checkout
    from pipelines.core.params import load_params
    from pipelines.data.ingest.photo_files import is_picture_name
    from pipelines.operations.inbox.reading import local_batches
    from pipelines.registry.retraining import LATEST, known_versions
    from pipelines.stages.ingest import Inputs, Outputs, run

    given = load_params(params)
    if latest:
        shutil.rmtree(out, ignore_errors=True)
        if known_versions(Path.cwd()):
            checkout(LATEST)
    counts = {}
    for name, folder in local_batches(_open(inbox, params), run_id, _SCRATCH).items():
        pictures = [file for file in folder.rglob("*") if is_picture_name(file.name)]
        if not pictures and not any(folder.rglob("*.tar")) and not any(folder.rglob("*.parquet")):
            say(f"{name}: no readable photo is left in it")
            continue
        counts[name] = run(given, Inputs(folder), Outputs(out)).new_rows
        say(f"{name}: {counts[name]} new photos")
    emit(counts)


@app.command()
def validate(run_id: RunId, inbox: Address, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Judge the dataset as `dynamicid validate` does; where the verdict is against it, refuse what the run took."""
    from pipelines.commands.validate import validate as judge

    verdict = Path(VERDICT)
    verdict.unlink(missing_ok=True)
    try:
        judge(params=params)
    except StageFailed as error:
        # Only a verdict refuses a batch: other failures leave none, and their batch is tried again.
        if verdict.is_file():
            refuse(run_id, inbox, str(error), params)
        raise


@app.command()
def publish(skip_code: SkipCode = 0) -> None:
    """Make a version of the dataset once: a retry prints the one that was made before, as JSON."""
    from pipelines.commands.dataset import publish_version
    from pipelines.core.files import write_atomically

    if not (_PUBLISHED.is_file() and _PUBLISHED.stat().st_size):
        write_atomically(_PUBLISHED, json.dumps(publish_version(Path(FACES))))
    published = json.loads(_PUBLISHED.read_text(encoding="utf-8"))
    emit(published)
    if not published["new"]:
        say("every photo was in the dataset already")
        raise typer.Exit(skip_code)


@app.command()
def done(run_id: RunId, inbox: Address, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Move what a run took to where finished batches are kept."""
    place = _open(inbox, params).finish(run_id)
    emit({"moved_to": place}, place)
    shutil.rmtree(_SCRATCH, ignore_errors=True)


@app.command()
def refuse(
    run_id: RunId,
    inbox: Address,
    reason: Annotated[str, option("Why; stands beside every file in the list.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Move what a run took to where bad batches are kept, with the reason."""
    place = _open(inbox, params).finish(run_id, refused=reason)
    emit({"moved_to": place}, place)


def _open(address: str, params: Path) -> Inbox:
    from pipelines.core.params import load_params
    from pipelines.operations.inbox.protocol import Inbox as Box

    return Box(address, load_params(params).inbox.quiet_seconds)
