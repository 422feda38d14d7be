"""Search all files below folders for any 64 bytes of given pictures, also inside the formats that hold pictures.

It shares no code with what it tests.
"""

from __future__ import annotations

import base64
import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WINDOW = 64
_CHUNK = 1 << 24
# Any 64 bytes of a picture contain 8 bytes that begin at a multiple of this.
_STRIDE = WINDOW - 7
_BASE64 = re.compile(rb"base64,([A-Za-z0-9+/=]{64,})")


class Windows:
    """Words of 8 bytes of the pictures, each with the picture and its place; none that `others` have, too."""

    def __init__(self, pictures: Iterable[bytes], others: Iterable[bytes]) -> None:
        self.pictures = list(pictures)
        places: dict[int, tuple[int, int]] = {}
        for number, picture in enumerate(self.pictures):
            words = _words(picture)
            places.update({int(words[at]): (number, at) for at in range(0, len(words), _STRIDE)})
        words = np.fromiter(places, np.uint64)
        shared = {word for other in others for word in np.intersect1d(words, _words(other)).tolist()}
        self._places = {word: place for word, place in places.items() if word not in shared}
        self._keys = np.fromiter(self._places, np.uint64, len(self._places))
        self._likely = np.zeros(1 << 22, bool)
        self._likely[_short(self._keys)] = True

    def hit(self, data: bytes) -> bool:
        """Whether the bytes hold 64 bytes of a picture."""
        return any(self._in(data[start : start + _CHUNK + WINDOW]) for start in range(0, len(data), _CHUNK))

    def _in(self, data: bytes) -> bool:
        words = _words(data)
        likely = np.flatnonzero(self._likely[_short(words)])
        places = likely[np.isin(words[likely], self._keys)]
        return any(self._equal(data, int(place), int(words[place])) >= WINDOW for place in places)

    def _equal(self, data: bytes, place: int, word: int) -> int:
        """Return how many bytes around a word are the same in the data and in the picture."""
        number, at = self._places[word]
        picture = self.pictures[number]
        before = min(place, at, WINDOW)
        after = min(len(data) - place, len(picture) - at, WINDOW)
        one = np.frombuffer(data[place - before : place + after], np.uint8)
        differs = np.flatnonzero(one != np.frombuffer(picture[at - before : at + after], np.uint8))
        first = differs[differs < before].max(initial=-1)
        last = differs[differs >= before].min(initial=before + after)
        return int(last - first - 1)

    def files_with(self, folders: Iterable[Path]) -> list[str]:
        """Return every file below the folders that holds 64 bytes of a picture, read as its format is."""
        files = sorted({file for folder in folders for file in folder.rglob("*") if file.is_file()})
        return [str(file) for file in files if any(self.hit(part) for part in contents(file.read_bytes()))]


def contents(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """Yield the bytes and everything that is packed in them: archives, tables, pages."""
    yield data
    if depth > 3:
        return
    for part in _inside(data):
        yield from contents(part, depth + 1)


def _inside(data: bytes) -> Iterator[bytes]:
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:4] == b"PAR1":
        yield from _cells(pq.read_table(pa.BufferReader(data)))
    elif data[:6] == b"ARROW1":
        yield from _cells(pa.ipc.open_file(pa.BufferReader(data)).read_all())
    elif zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            yield from (archive.extractfile(item).read() for item in archive if item.isfile())
    else:
        yield from (base64.b64decode(found.group(1) + b"==") for found in _BASE64.finditer(data))


def _cells(table: pa.Table) -> Iterator[bytes]:
    for column in table.flatten().columns:
        if pa.types.is_binary(column.type):
            yield b"".join(value for value in column.to_pylist() if value)
        elif pa.types.is_list(column.type) and pa.types.is_floating(column.type.value_type):
            yield pa.compute.list_flatten(column).cast(pa.float32()).to_numpy(zero_copy_only=False).tobytes()


def _short(words: np.ndarray) -> np.ndarray:
    """Return a hash of 22 bits of each word."""
    return (words * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(42)


def _words(data: bytes) -> np.ndarray:
    """Return the 8 bytes at every place as a number."""
    words = np.empty(max(0, len(data) - 7), np.uint64)
    for shift in range(min(8, len(words))):
        words[shift::8] = np.frombuffer(data, "<u8", (len(data) - shift) // 8, shift)
    return words
