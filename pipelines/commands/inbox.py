"""`dynamicid inbox`: add photos from an inbox (pipelines/operations/inbox/batches.py) to the dataset."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands.options import DEFAULT_PARAMS, ParamsFile, RunId, SkipCode, command_group, option
from pipelines.commands.output import emit, say
from pipelines.core.chain import FACES, VERDICT
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import write_atomically
from pipelines.core.locks import hold_everywhere
from pipelines.core.words import counted
from pipelines.operations.inbox.batches import Inbox

app = command_group("Add photos from an inbox to the dataset; docs/guides/retrain.md describes the inbox.")

Address = Annotated[
    str, option("Inbox: a folder or an object-store prefix.", "--inbox", envvar="DYNAMICID_INBOX", metavar="URL")
]
_OWN = ".dynamicid/inbox"
# Copies of batches of an object store; not in the inbox of this checkout, since it is removed.
_SCRATCH = Path(".dynamicid/inbox_copies")
# An object store moves no file in one step: two runs that took the same batch would both copy it.
_TAKING, _TAKE_SECONDS = Path(".dynamicid/inbox.lock"), 600.0
# What the reason of a batch that cannot be added begins with.
_REFUSED = "refused: "
# The published version is recorded beside the data: a retry prints the version that an earlier attempt made.
_PUBLISHED = Path(".dynamicid/published.json")


@app.command()
def ready(inbox: Address = _OWN, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Print as JSON which batches are ready, and which wait and why."""
    batches = _existing(inbox, params).batches()
    waiting = {batch.name: batch.wait_reason for batch in batches if batch.wait_reason is not None}
    emit({"ready": [batch.name for batch in batches if batch.name not in waiting], "waiting": waiting})


@app.command()
def take(run_id: RunId, inbox: Address, params: ParamsFile = DEFAULT_PARAMS, skip_code: SkipCode = 0) -> None:
    """Move every ready batch to _taken for a run, unreadable and forgotten photos to _bad; print their list's path.

    Their names are not printed: a scheduler keeps what a task prints in its database.
    """
    from pipelines.core.params import load_params
    from pipelines.operations.inbox.reading import local_batches, too_large, unusable
    from pipelines.registry.settings import tracking_root
    from pipelines.versions.forgotten import gate
    from pipelines.versions.places import INBOX, note_outside

    forgotten = gate()
    box = _existing(inbox, params)
    if box.is_folder:
        note_outside(Path.cwd(), Path(box.root), _OWN, INBOX)
    taken = StageFailed(f"inbox {inbox}: another run has been taking batches for {_TAKE_SECONDS:.0f} s; run again")
    with hold_everywhere(tracking_root(Path.cwd()) / _TAKING, _TAKE_SECONDS, taken):
        names = box.take(run_id)
    given = load_params(params)
    reasons = too_large(box, run_id, given.ingest.max_file_mb * 2**20)
    box.set_aside(run_id, reasons)
    found = unusable(local_batches(box, run_id, _SCRATCH), given.preprocess.max_pixels, forgotten)
    box.set_aside(run_id, found)
    reasons |= found
    for file, reason in reasons.items():
        say(f"{file}: {reason}; set aside")
    if not box.is_folder:
        for file in reasons:
            (_SCRATCH / file).unlink(missing_ok=True)
    say(f"{counted(len(names), 'batch', 'batches')} taken, {counted(len(reasons), 'photo')} set aside")
    emit({"batches": names, "bad": len(box.bad(run_id)), "list": box.list_of(run_id)})
    if not names:
        say("no batch is ready, or another run took it")
        raise typer.Exit(skip_code)


@app.command()
def add(
    run_id: RunId,
    inbox: Address,
    out: Annotated[Path, option("Dataset folder to add to.", metavar="DIR")] = Path(FACES),
    latest: Annotated[bool, option("Replace the folder with the newest dataset version first.", "--latest")] = False,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Add the photos that a run took to the dataset, without making a version; print the counts as JSON."""
    from pipelines.commands.dataset import checkout
    from pipelines.core.params import load_params
    from pipelines.data.ingest.layout import UnclearLayout
    from pipelines.data.ingest.photo_files import is_picture_name
    from pipelines.data.ingest.summary import UnmatchedLabels
    from pipelines.operations.inbox.reading import local_batches
    from pipelines.registry.retraining import LATEST
    from pipelines.stages.ingest import Inputs, Outputs, run
    from pipelines.versions.dataset_version import fetch_versions, known_versions
    from pipelines.versions.forgotten import REASON

    given = load_params(params)
    if latest:
        shutil.rmtree(out, ignore_errors=True)
        fetch_versions(Path.cwd())
        if known_versions(Path.cwd()):
            checkout(LATEST)
    _begin()
    counts = {}
    box = _open(inbox, params)
    bad = box.bad(run_id)
    batches = local_batches(box, run_id, _SCRATCH)
    if not batches and (refused := next((reason for reason in bad.values() if reason.startswith(_REFUSED)), None)):
        raise StageFailed(refused)  # an earlier attempt of this run refused its batches
    for name, folder in batches.items():
        pictures = [file for file in folder.rglob("*") if is_picture_name(file.name)]
        if not pictures and not any(folder.rglob("*.tar")) and not any(folder.rglob("*.parquet")):
            say(f"{name}: it holds no readable photo")
            continue
        absent = frozenset(file.partition("/")[2] for file in bad if file.startswith(f"{name}/"))
        try:
            summary = run(given, Inputs(folder, absent=absent), Outputs(out))
        except (UnmatchedLabels, UnclearLayout) as error:
            refuse(run_id, inbox, f"{_REFUSED}{error}", params)
            raise
        counts[name] = summary.new_rows
        left_out = summary.skipped.get(REASON, 0)
        say(f"{name}: {counted(counts[name], 'new photo')}" + (f"; {left_out} left out: {REASON}" if left_out else ""))
    emit(counts)


@app.command()
def validate(run_id: RunId, inbox: Address, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Run `dynamicid validate`; if the verdict is negative, move the batches of the run to _bad."""
    from pipelines.commands.validate import validate as validate_dataset

    verdict = Path(VERDICT)
    verdict.unlink(missing_ok=True)
    try:
        validate_dataset(params=params)
    except StageFailed as error:
        # A batch is refused only by a verdict. Any other failure leaves no verdict, and the task is tried again.
        if verdict.is_file():
            refuse(run_id, inbox, str(error), params)
        raise


@app.command()
def publish(skip_code: SkipCode = 0) -> None:
    """Make a version of the dataset and print it as JSON; a retry prints the version already made."""
    from pipelines.commands.dataset import publish_version

    begun = _begin()
    made = publish_version(Path(FACES))
    same = begun["last"].get("md5") == made["md5"]
    published = begun["last"] if same else {**made, "new": made["tag"] not in begun["before"]}
    write_atomically(_PUBLISHED, json.dumps(published))
    emit(published)
    if not published["new"]:
        say("the dataset already held every photo")
        raise typer.Exit(skip_code)


@app.command()
def done(run_id: RunId, inbox: Address, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Move the batches of a run to _done."""
    place = _open(inbox, params).finish(run_id)
    emit({"moved_to": place}, place)
    shutil.rmtree(_SCRATCH, ignore_errors=True)
    _PUBLISHED.unlink(missing_ok=True)


@app.command()
def clean(
    inbox: Address = _OWN,
    apply: Annotated[bool, option("Remove; without it, only list what would be removed.", "--apply")] = False,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """List batches in _done that are older than `keeping.inbox_days`; with --apply remove them. Prints JSON."""
    from pipelines.core.params import load_params

    days = load_params(params).keeping.inbox_days
    box = _existing(inbox, params)
    old = [] if days is None else box.finished_before(time.time() - days * 86400)
    for run, size in old:
        if apply:
            box.remove_finished(run)
        say(f"_done/{run}: {size} bytes {'removed' if apply else 'would go'}")
    if days is None:
        say("keeping.inbox_days is null: every finished batch stays")
    emit({"applied": apply, "runs": [run for run, _ in old], "bytes": sum(size for _, size in old)})


@app.command()
def refuse(
    run_id: RunId,
    inbox: Address,
    reason: Annotated[str, option("Reason, listed beside every file in _bad/RUN.json.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Move the batches of a run to _bad, with the reason."""
    place = _open(inbox, params).finish(run_id, refused=reason)
    emit({"moved_to": place}, place)


def _begin() -> dict[str, Any]:
    """Write which versions there are before this run makes one: if it is killed, its version is new for a retry, too.

    `add` does it, so that also a retry on another machine knows them.
    """
    from pipelines.versions.dataset_version import fetch_versions, known_versions

    begun: dict[str, Any] = json.loads((_PUBLISHED.is_file() and _PUBLISHED.read_text(encoding="utf-8")) or "{}")
    if "before" not in begun:
        fetch_versions(Path.cwd())
        begun = {"before": known_versions(Path.cwd()), "last": begun}
        write_atomically(_PUBLISHED, json.dumps(begun))
    return begun


def _open(address: str, params: Path) -> Inbox:
    from pipelines.core.params import load_params

    return Inbox(address, load_params(params).inbox.quiet_seconds)


def _existing(address: str, params: Path) -> Inbox:
    """Open an inbox; raise UserError where it is a folder that is missing, unless it is the checkout's own.

    The own one is made by whoever puts the first photo there; a prefix of an object store needs no folder.
    """
    from pipelines.registry.settings import tracking_root

    box = _open(address, params)
    own = Path(box.root).resolve() == (tracking_root(Path.cwd()) / _OWN).resolve()
    if box.is_folder and not own and not box.fs.isdir(box.root):
        raise UserError(f"inbox {address}: no such folder; create it, or name another with --inbox")
    return box
