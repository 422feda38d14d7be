"""Search files, and what is packed in them, for distinctive pieces of deleted photos and embeddings."""

from __future__ import annotations

import base64
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
_JPEG, _START_OF_SCAN = b"\xff\xd8", 0xDA
_SKIPPED = frozenset({".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})


@dataclass
class Probe:
    """Pieces of bytes, three of each photo or embedding, to search files for."""

    pieces: set[bytes] = field(default_factory=set)

    def add(self, data: bytes) -> None:
        """Take pieces from three places of `data`, of a picture also as they are in HTML pages."""
        start = _coded(data)
        self._take(data[start:])
        if is_picture_start(data):
            self._take(base64.b64encode(data[start + -start % 3 :]))

    def _take(self, data: bytes) -> None:
        for quarter in (1, 2, 3):
            start = max(0, len(data) * quarter // 4 - _PIECE // 2)
            piece = data[start : start + _PIECE]
            if len(piece) == _PIECE and len(set(piece)) >= _MIN_DISTINCT:
                self.pieces.add(piece)

    def drop_shared(self, pictures: Iterable[bytes]) -> None:
        """Drop the pieces that pictures of other people have, too, as over the same plain background.

        A picture with all pieces of one is a copy under another name: they stay, so that it is found.
        """
        search, quarters = _Search(self.pieces, lambda _: False), 3
        for picture in pictures:
            for form in (picture, base64.b64encode(picture)):
                shared = set(search.found_in(np.frombuffer(form, np.uint8)))
                if len(shared) < quarters:
                    self.pieces -= shared

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
            if self._pieces and any(self.found_in(np.frombuffer(before + chunk, np.uint8))):
                return True
            before = (before + chunk)[1 - _PIECE :]
            chunk = stream.read(_CHUNK)
        return picture and self._shows(digest.hexdigest())

    def found_in(self, chunk: np.ndarray) -> Iterator[bytes]:
        """Yield the pieces that are in bytes (N,) uint8."""
        if len(chunk) < _PIECE:
            return
        words = chunk[:-1].astype(np.uint16) | chunk[1:].astype(np.uint16) << 8
        offsets = np.flatnonzero(self._starts[words[: len(chunk) - _PIECE + 1]])
        heads = chunk[offsets[:, None] + np.arange(8)].view("<u8").reshape(-1)
        for offset in offsets[np.isin(heads, self._keys)]:
            piece = chunk[offset : offset + _PIECE].tobytes()
            if piece in self._pieces:
                yield piece


def _coded(data: bytes) -> int:
    """Return where the coded picture begins, after headers, tables and profiles that other pictures have, too.

    0 for other formats, and for what is no picture.
    """
    for magic, chunk in ((b"\x89PNG", b"IDAT"), (b"RIFF", b"VP8 "), (b"RIFF", b"VP8L")):
        if data.startswith(magic) and chunk in data:
            return data.index(chunk)
    at, marker = 2, 0
    while data.startswith(_JPEG) and marker != _START_OF_SCAN and data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker = data[at + 1]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at if marker == _START_OF_SCAN else 0


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
