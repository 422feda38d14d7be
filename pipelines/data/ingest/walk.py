"""Walk a folder of photos in sorted order, without leaving it; yield every file, as Entry or as Skipped."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipelines.core.errors import UserError
from pipelines.core.formats.folders import EXPORT_MARKER, stated_version
from pipelines.core.formats.table import EXPORT
from pipelines.data.ingest.photo_files import SIGNATURE_BYTES, Skipped, is_picture_start, row_name

HIDDEN = "hidden"
MISSING = "missing"
BROKEN_LINK = "link to nothing"
LINK_OUT = "link that leads out of the folder"
FOLDER = "link to a folder; the folder itself is read under its own name"
NOT_REGULAR = "not a regular file"
DENIED = "permission denied"
NO_PICTURE = "not a picture"
UNPAIRED_TEXT = "text without a picture of its name"


@dataclass(frozen=True)
class Entry:
    """A regular file: name relative to the root, checked real path, size; subclasses are members of archives."""

    relative: str
    path: str
    n_bytes: int

    @property
    def name(self) -> str:
        """The name in its folder."""
        return self.relative.rpartition("/")[2]

    def opened(self) -> BinaryIO:
        """Return the file, open for reading."""
        return open(self.path, "rb")  # noqa: PTH123 (millions of names, some not UTF-8)

    def start(self, size: int) -> bytes | None:
        """Return the first bytes of the file; None where it cannot be read."""
        try:
            with self.opened() as file:
                return file.read(size)
        except OSError:
            return None


def check_root(root: Path) -> Path:
    """Return the real path of a folder; raise UserError for another kind of file, no permission, a newer export."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected a folder, a JSON list, a tar shard or Parquet")
    real = root.resolve()
    try:
        with os.scandir(real):
            pass
    except PermissionError:
        raise UserError(f"{root}: permission denied; its files cannot be listed") from None
    stated_version(EXPORT, root / EXPORT_MARKER)
    return real


def classify(root: str, relative: str) -> Entry | Skipped:
    """Return the regular file `relative` in the real folder `root`, or Skipped (also for a link that leads out)."""
    path = os.path.join(root, relative)  # noqa: PTH118 (millions of names, some not UTF-8)
    try:
        name = row_name(relative)
        real = os.path.realpath(path)
    except ValueError:  # a NUL, or half of a surrogate pair
        return Skipped(relative.encode("utf-8", "replace").decode("utf-8"), MISSING)
    if os.path.commonpath([root, real]) != root:
        return Skipped(name, LINK_OUT)
    try:
        status = os.lstat(real)
    except PermissionError:
        return Skipped(name, DENIED)
    except OSError:
        return Skipped(name, BROKEN_LINK if os.path.islink(path) else MISSING)  # noqa: PTH114
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        return Entry(relative, real, status.st_size)
    # A path that is still a link after all links are resolved is circular.
    return Skipped(name, {stat.S_IFLNK: BROKEN_LINK, stat.S_IFDIR: FOLDER}.get(kind, NOT_REGULAR))


def walk_files(root: Path) -> Iterator[list[Entry | Skipped]]:
    """Yield the files of each folder under `root`, depth first, all sorted by the bytes of their names.

    Hidden files and folders, and links that must not be followed, are yielded as Skipped.
    """
    base = os.fspath(root)
    stack: list[Iterator[list[Entry | Skipped] | str]] = [_folder(base, "")]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        elif isinstance(step, str):
            stack.append(_folder(base, step))
        else:
            yield step


def each_file(root: Path, only: str | None = None) -> Iterator[Entry | Skipped]:
    """Yield the files of `walk_files` one by one, or the file `only` of `root` alone."""
    if only is not None:
        yield classify(str(root), only)
        return
    for files in walk_files(root):
        yield from files


def files_of(root: Path, folder: str) -> list[Entry | Skipped]:
    """Return the files of one folder below the real folder `root`, as `walk_files`."""
    return [item for step in _folder(os.fspath(root), folder) if isinstance(step, list) for item in step]


def _folder(root: str, relative: str) -> Iterator[list[Entry | Skipped] | str]:
    """Yield the files of one folder as one list, then the names of its sub-folders."""
    try:
        with os.scandir(os.path.join(root, relative) if relative else root) as scan:  # noqa: PTH118
            items = sorted(scan, key=lambda item: os.fsencode(item.name))
    except OSError as error:
        yield [Skipped(row_name(relative), why_unreadable(error))]
        return
    files: list[Entry | Skipped] = []
    folders: list[str] = []
    for item in items:
        name = f"{relative}/{item.name}" if relative else item.name
        try:
            if item.name.startswith("."):
                files.append(Skipped(row_name(name), HIDDEN))
            elif item.is_symlink():
                files.append(classify(root, name))
            elif item.is_dir():
                folders.append(name)
            elif item.is_file():
                files.append(Entry(name, item.path, item.stat().st_size))
            else:
                files.append(Skipped(row_name(name), NOT_REGULAR))
        except OSError as error:
            files.append(Skipped(row_name(name), why_unreadable(error)))
    yield files
    yield from folders


def why_unreadable(error: OSError) -> str:
    """Return why a file or folder cannot be read; one that vanished meanwhile is MISSING."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return MISSING
    return DENIED if isinstance(error, PermissionError) else f"cannot be read: {error.strerror}"


def has_signature(entry: Entry) -> bool:
    """Whether a file begins like a picture; False where it cannot be read."""
    return entry.n_bytes > 0 and is_picture_start(entry.start(SIGNATURE_BYTES) or b"")
