"""Looking for what is left: distinctive pieces of forgotten bytes in every file of some folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_PIECE = 48
_CHUNK = 1 << 22
# A piece of fewer different bytes (padding, a plain wall) occurs in many files.
_VARIED = 16
_SKIPPED = frozenset({".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})


@dataclass
class Probe:
    """Pieces of bytes, three from each thing that was forgotten, and what they are searched by."""

    pieces: set[bytes] = field(default_factory=set)

    def add(self, data: bytes) -> None:
        """Take pieces from the middle of `data`, where no header is that others have too."""
        for quarter in (1, 2, 3):
            start = max(0, len(data) * quarter // 4 - _PIECE // 2)
            piece = data[start : start + _PIECE]
            if len(piece) == _PIECE and len(set(piece)) >= _VARIED:
                self.pieces.add(piece)

    def files_with(self, folders: Iterable[Path]) -> list[Path]:
        """Return every file below `folders` that has one of the pieces anywhere; links are not followed."""
        search = _Search(self.pieces)
        return [file for file in _files(folders) if search.hits(file)] if self.pieces else []


class _Search:
    """A table of the first two bytes finds candidates at once, their first eight bytes most of the others."""

    def __init__(self, pieces: set[bytes]) -> None:
        self._pieces = pieces
        self._starts = np.zeros(1 << 16, bool)
        self._starts[[int.from_bytes(piece[:2], "little") for piece in pieces]] = True
        self._keys = np.unique([np.uint64(int.from_bytes(piece[:8], "little")) for piece in pieces])

    def hits(self, file: Path) -> bool:
        """Whether a file has one of the pieces; one that cannot be read is taken for one that has none."""
        try:
            if file.stat().st_size < _PIECE:
                return False
            data = np.memmap(file, np.uint8, "r")
        except (OSError, ValueError):
            return False
        return any(
            self._in(data[start : start + _CHUNK + _PIECE]) for start in range(0, len(data) - _PIECE + 1, _CHUNK)
        )

    def _in(self, chunk: np.ndarray) -> bool:
        words = chunk[:-1].astype(np.uint16) | chunk[1:].astype(np.uint16) << 8
        places = np.flatnonzero(self._starts[words[: len(chunk) - _PIECE + 1]])
        heads = chunk[places[:, None] + np.arange(8)].view("<u8").reshape(-1)
        likely = places[np.isin(heads, self._keys)]
        return any(chunk[place : place + _PIECE].tobytes() in self._pieces for place in likely)


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for top in folders:
        for folder, below, names in os.walk(top):
            below[:] = sorted(name for name in below if name not in _SKIPPED)
            for name in sorted(names):
                file = Path(folder) / name
                if file.is_symlink() or not file.is_file():
                    continue
                status = file.stat()
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    yield file
