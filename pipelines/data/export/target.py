"""Write the folder of an export; it gets its name when it is complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from pipelines.core.errors import UserError
from pipelines.core.files import atomic_folder

METADATA = "metadata.jsonl"


class Target:
    """Writes files below `folder` without replacing any. Paths are relative, with "/"."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metadata: IO[str] | None = None

    def path(self, relative: str) -> Path:
        """Return the path of `relative`, after creating its folders."""
        path = self.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, relative: str, data: bytes) -> None:
        """Write a file; raise FileExistsError where it exists."""
        with self.path(relative).open("xb") as file:
            file.write(data)

    def read(self, relative: str) -> bytes | None:
        """Return the bytes of a file, or None where it does not exist."""
        path = self.folder / relative
        return path.read_bytes() if path.exists() else None

    def describe(self, relative: str, known: dict[str, str]) -> None:
        """Append a photo's `file_name` and known labels to metadata.jsonl."""
        if self._metadata is None:
            self._metadata = (self.folder / METADATA).open("w", encoding="utf-8", newline="\n")
        self._metadata.write(json.dumps({"file_name": relative, **known}, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close metadata.jsonl."""
        if self._metadata is not None:
            self._metadata.close()
            self._metadata = None


@contextmanager
def new_folder(out: Path) -> Iterator[Target]:
    """Yield a target whose folder becomes `out` when the block succeeds, and is deleted when it fails.

    Raises UserError where `out` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty; an export needs a new folder, choose another --out")
    with atomic_folder(out) as part, closing(Target(part)) as target:
        yield target
