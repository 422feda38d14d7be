"""A folder being exported to: files appear in it one by one, the folder under its name when it is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from pipelines.core.errors import UserError
from pipelines.core.files import atomic_folder
from pipelines.data.export.names import with_mark

METADATA = "metadata.jsonl"


class Target:
    """Writes files below `folder`; no file replaces another. Paths are relative, with "/"."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metadata: IO[str] | None = None
        self._made: set[str] = set()

    def path(self, relative: str) -> str:
        """Return where `relative` lies; its folders are there."""
        path = f"{os.fspath(self.folder)}/{relative}"
        parent = path.rpartition("/")[0]
        if parent not in self._made:
            os.makedirs(parent, exist_ok=True)  # noqa: PTH103 (names that are not UTF-8)
            self._made.add(parent)
        return path

    def write(self, relative: str, data: bytes) -> None:
        """Write a file; FileExistsError where there is one of that name."""
        with open(self.path(relative), "xb") as file:  # noqa: PTH123
            file.write(data)

    def has(self, relative: str) -> bool:
        """Whether a file of this name is there."""
        return os.path.exists(f"{os.fspath(self.folder)}/{relative}")  # noqa: PTH110

    def read(self, relative: str) -> bytes | None:
        """Return what a file holds, or None where there is none."""
        try:
            with open(f"{os.fspath(self.folder)}/{relative}", "rb") as file:  # noqa: PTH123
                return file.read()
        except FileNotFoundError:
            return None

    def write_photo(self, relative: str, data: bytes, image_id: str) -> str:
        """Write a picture under `relative`, or with a mark in its name where another has that; return the name."""
        try:
            self.write(relative, data)
        except FileExistsError:
            relative = with_mark(relative, image_id)
            self.write(relative, data)
        return relative

    def describe(self, relative: str, known: dict[str, str]) -> None:
        """Append a line to metadata.jsonl: a photo's name as its row would have it, and what is known of it."""
        if self._metadata is None:
            self._metadata = (self.folder / METADATA).open("w", encoding="utf-8", newline="\n")
        self._metadata.write(json.dumps({"file_name": relative, **known}, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close what is open."""
        if self._metadata is not None:
            self._metadata.close()
            self._metadata = None


@contextmanager
def new_folder(out: Path) -> Iterator[Target]:
    """Yield a target whose folder becomes `out` when the block has succeeded; on failure nothing is left.

    Raises UserError where `out` is there already and not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: it exists and is not empty; an export goes to a new folder, choose another --out")
    with atomic_folder(out) as part, closing(Target(part)) as target:
        yield target
