"""Search files, and what is packed in them, for distinctive pieces of deleted photos and embeddings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipelines.data.ingest.photo_files import is_picture_name, is_picture_start
from pipelines.operations.forgetting.packed import Unreadable, contents, is_packed

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

    def files_with(self, folders: Iterable[Path], shows: Callable[[str], bool] = lambda _: False) -> list[Path]:
        """Return every file below `folders` that `among` finds; links are not followed."""
        return self.among(_files(folders), shows)

    def among(self, files: Iterable[Path], shows: Callable[[str], bool] = lambda _: False) -> list[Path]:
        """Return those of the files with one of the pieces, or a picture whose sha256 (hex) `shows` takes.

        What is packed in archives and compressed files is searched, too.
        """
        search = _Search(self.pieces, shows)
        return [file for file in files if search.hits(file)]


class _Search:
    """Find candidates by the first two bytes of a piece, then by the first eight; then compare the whole piece."""

    def __init__(self, pieces: set[bytes], shows: Callable[[str], bool]) -> None:
        self._pieces, self._shows = pieces, shows
        self._starts = np.zeros(1 << 16, bool)
        self._starts[[int.from_bytes(piece[:2], "little") for piece in pieces]] = True
        self._keys = np.unique(np.array([int.from_bytes(piece[:8], "little") for piece in pieces], np.uint64))

    def hits(self, file: Path) -> bool:
        """Whether a file, or what is packed in it, has what is searched for; False for what cannot be read."""
        try:
            with file.open("rb") as stream:
                packed = is_packed(stream.peek(512))
                if self._in_stream(file.name, stream):
                    return True
                stream.seek(0)
                return packed and any(self._in_stream(*item) for item in contents(stream, file.name))
        except (OSError, Unreadable):
            return False

    def _in_stream(self, name: str, stream: BinaryIO) -> bool:
        chunk = stream.read(_CHUNK)
        picture = is_picture_name(name) or is_picture_start(chunk)
        digest, before = hashlib.sha256(), b""
        while chunk and (picture or self._pieces):
            digest.update(chunk)
            if self._pieces and self._in(np.frombuffer(before + chunk, np.uint8)):
                return True
            before = (before + chunk)[1 - _PIECE :]
            chunk = stream.read(_CHUNK)
        return picture and self._shows(digest.hexdigest())

    def _in(self, chunk: np.ndarray) -> bool:
        if len(chunk) < _PIECE:
            return False
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
