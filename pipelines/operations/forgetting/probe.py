"""Search all files of given folders for distinctive pieces of deleted photos and embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_PIECE = 48
_CHUNK = 1 << 22
# Pieces with fewer different byte values (padding, a plain background) occur in many files.
_MIN_DISTINCT = 16
_SKIPPED = frozenset({".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})


@dataclass
class Probe:
    """Pieces of bytes, three of each photo or embedding, to search files for."""

    pieces: set[bytes] = field(default_factory=set)

    def add(self, data: bytes) -> None:
        """Take pieces from the middle of `data`, since headers are the same in many files."""
        for quarter in (1, 2, 3):
            start = max(0, len(data) * quarter // 4 - _PIECE // 2)
            piece = data[start : start + _PIECE]
            if len(piece) == _PIECE and len(set(piece)) >= _MIN_DISTINCT:
                self.pieces.add(piece)

    def files_with(self, folders: Iterable[Path]) -> list[Path]:
        """Return every file below `folders` that contains one of the pieces; links are not followed."""
        return self.among(_files(folders))

    def among(self, files: Iterable[Path]) -> list[Path]:
        """Return those of the files that contain one of the pieces."""
        search = _Search(self.pieces)
        return [file for file in files if search.hits(file)] if self.pieces else []


class _Search:
    """Find candidates by the first two bytes of a piece, then by the first eight; then compare the whole piece."""

    def __init__(self, pieces: set[bytes]) -> None:
        self._pieces = pieces
        self._starts = np.zeros(1 << 16, bool)
        self._starts[[int.from_bytes(piece[:2], "little") for piece in pieces]] = True
        self._keys = np.unique([np.uint64(int.from_bytes(piece[:8], "little")) for piece in pieces])

    def hits(self, file: Path) -> bool:
        """Whether a file contains one of the pieces; False where it cannot be read."""
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
        offsets = np.flatnonzero(self._starts[words[: len(chunk) - _PIECE + 1]])
        heads = chunk[offsets[:, None] + np.arange(8)].view("<u8").reshape(-1)
        candidates = offsets[np.isin(heads, self._keys)]
        return any(chunk[offset : offset + _PIECE].tobytes() in self._pieces for offset in candidates)


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    visited: set[tuple[int, int]] = set()
    for top in folders:
        for folder, below, names in os.walk(top):
            below[:] = sorted(name for name in below if name not in _SKIPPED)
            for name in sorted(names):
                file = Path(folder) / name
                if file.is_symlink() or not file.is_file():
                    continue
                status = file.stat()
                if (status.st_dev, status.st_ino) not in visited:
                    visited.add((status.st_dev, status.st_ino))
                    yield file
