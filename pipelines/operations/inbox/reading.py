"""Read the batches of a run from local folders, and find unreadable photos."""

from __future__ import annotations

from pathlib import Path

from pipelines.core.files import atomic_file
from pipelines.data.ingest.photo_files import is_picture_name
from pipelines.operations.inbox.batches import TAKEN, Inbox
from pipelines.versions.workspace import run_name


def local_batches(inbox: Inbox, run_id: str, scratch: Path) -> dict[str, Path]:
    """Return {batch: local folder}; files of an object store are copied into `scratch` first."""
    names = inbox.taken(run_id)
    if inbox.is_folder:
        return {name: Path(inbox.path(TAKEN, run_name(run_id), name)) for name in names}
    folders = {name: scratch / name for name in names}
    for batch, folder in folders.items():
        source = (TAKEN, run_name(run_id), batch)
        for name in inbox.files(*source):
            if not (folder / name).exists():
                with atomic_file(folder / name) as part:
                    inbox.fs.get_file(inbox.path(*source, name), str(part))
    return folders


def unreadable(batches: dict[str, Path], max_pixels: int) -> dict[str, str]:
    """Return {"<batch>/<file>": reason} of every picture that cannot be decoded."""
    from pipelines.data.faces.decode import Undecodable, decode

    reasons = {}
    for name, folder in batches.items():
        for file in sorted(folder.rglob("*")):
            if not file.is_file() or not is_picture_name(file.name):
                continue
            try:
                decode(file.read_bytes(), max_pixels=max_pixels, min_side=1, working_side=64)
            except Undecodable as error:
                reasons[f"{name}/{file.relative_to(folder).as_posix()}"] = str(error)
    return reasons
