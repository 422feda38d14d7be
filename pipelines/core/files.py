"""The hash of a file, and files and folders that are whole or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sha256(file: Path) -> str:
    """Return the sha256 (hex) of a file's bytes, read in pieces; OSError where it cannot be read."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_file(file: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield `.<name>.part` beside `file` to write to; it replaces `file` when the block has succeeded.

    Its folder is made where it is missing. On failure the file is as it was, and nothing is left beside it. `shared`
    puts the number of the process into the name, for a file that several may write at once.
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
    """Replace `file` with `content` (text in UTF-8) by one rename; `mode`, less umask, holds from the first byte on."""
    with atomic_file(file) as part:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(folder: Path, *, mode: int = 0o777) -> Iterator[Path]:
    """Yield a new folder `.<name>.part` beside `folder`; it replaces `folder` when the block has succeeded.

    What a killed process left there goes first. On failure `folder` is as it was, and nothing is left beside it.
    """
    part, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    part.mkdir(mode=mode)
    try:
        yield part
        # Aside by a rename: what is removed file by file would be half there for a while.
        shutil.rmtree(old, ignore_errors=True)
        if folder.is_dir():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
