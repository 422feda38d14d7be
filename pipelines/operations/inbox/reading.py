"""Read the batches of a run from local folders, and find photos that are unreadable or forgotten."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipelines.core.files import atomic_file
from pipelines.data.ingest.contents import TOO_BIG
from pipelines.data.ingest.photo_files import is_picture_name
from pipelines.operations.inbox.batches import TAKEN, Inbox
from pipelines.versions.forgotten import Forgotten
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


def too_large(inbox: Inbox, run_id: str, max_bytes: int) -> dict[str, str]:
    """Return {"<batch>/<file>": reason} of every picture of a run that is too large to be read; none is opened."""
    run = run_name(run_id)
    return {
        name: TOO_BIG
        for name in inbox.files(TAKEN, run)
        if is_picture_name(name) and inbox.fs.size(inbox.path(TAKEN, run, name)) > max_bytes
    }


def unusable(batches: dict[str, Path], max_pixels: int, forgotten: Forgotten) -> dict[str, str]:
    """Return {"<batch>/<file>": reason} of every picture that cannot be decoded or whose bytes are forgotten."""
    from pipelines.data.faces.decode import Undecodable, decode

    reasons = {}
    for name, folder in batches.items():
        for file in sorted(folder.rglob("*")):
            if file.is_symlink() or not file.is_file() or not is_picture_name(file.name):
                continue
            reason = None
            try:
                data = file.read_bytes()
                decode(data, max_pixels=max_pixels, min_side=1, working_side=64)
                reason = forgotten.reason(None, hashlib.sha256(data).hexdigest()) if forgotten else None
            except Undecodable as error:
                reason = str(error)
            except PermissionError as error:
                reason = f"unreadable: {error.strerror}"
            if reason is not None:
                reasons[f"{name}/{file.relative_to(folder).as_posix()}"] = reason
    return reasons
