"""File hashes, and files and folders that are replaced as a whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def sha256(file: Path) -> str:
    """Return the sha256 (hex) of a file; raise OSError where it cannot be read."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """Return the sha256 (hex) over names and bytes of the files in `folder`."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()


def mark_used(file: Path) -> None:
    """Set the time of the last use of a cached `file`, which not every file system notes; that of its content stays.

    Raises FileNotFoundError where it is gone. Of another user's file the time stays.
    """
    with suppress(PermissionError):
        os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns))


@contextmanager
def atomic_file(file: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield the path `.<name>.part` beside `file` to write to; after the block it replaces `file`.

    A missing folder is created. If the block fails, `file` is unchanged and the part is removed. `shared` adds the
    process number to the name, for a file that several processes may write at once.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part" if shared else f".{file.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(file: Path, content: str | bytes, *, mode: int = 0o666) -> None:
    """Write `content` (text in UTF-8) to `file` by one rename; `mode`, less the umask, applies from the first byte."""
    with atomic_file(file) as part:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(folder: Path, *, mode: int = 0o777) -> Iterator[Path]:
    """Yield a new folder `.<name>.part` beside `folder`; after the block it replaces `folder`.

    A part that a killed process left is removed first. If the block fails, `folder` is unchanged and the part removed.
    """
    part, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "old"))
    if old.is_dir() and not folder.exists():
        old.rename(folder)  # a process was killed between the two renames below
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    part.mkdir(mode=mode)
    try:
        yield part
        # The old folder is renamed before it is removed: readers must not see it with only some of its files.
        shutil.rmtree(old, ignore_errors=True)
        if folder.is_dir():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
