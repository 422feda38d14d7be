"""Open Parquet that somebody sent, so that it unpacks to no more memory than its size lets one expect.

A page is decompressed as a whole, and a dictionary stands for any number of copies of its values, so a file of a few
kilobytes may hold gigabytes. The headers of all pages are read first; the largest page decides the size of batches.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

# Pictures are compressed already: only what is no photo shrinks to less than a hundredth.
_RATIO = 100
_PAGE_BYTES, _LARGEST_PAGE = 64 * 2**20, 2**30
_BATCH_BYTES = 128 * 2**20
_ROWS = 100_000
# Reading it takes the processor about 3 s.
_FOOTER_BYTES = 4 * 2**20
# Of the format, lists and structures are nested 8 deep at most.
_MAX_DEPTH = 16
# What readers of Parquet raise, the last two for texts that are no UTF-8 and dates out of range.
FAULTS = (pa.ArrowException, OSError, MemoryError, ValueError, OverflowError)
_Kind = TypeVar("_Kind", list[object], dict[int, object])


class Unpacks(ValueError):
    """A file that would unpack to far more than its size; the message is the reason."""


@contextmanager
def open_parquet(path: str | Path) -> Iterator[pq.ParquetFile]:
    """Yield an opened file; raises Unpacks for one that unpacks to far more than its size, and FAULTS."""
    with pq.ParquetFile(path, pre_buffer=False) as file, open(path, "rb") as raw:  # noqa: PTH123 (names not in UTF-8)
        size = os.fstat(raw.fileno()).st_size
        if file.metadata.num_rows > max(size, _ROWS):
            raise Unpacks(f"Parquet of {size:,} bytes with {file.metadata.num_rows:,} rows; at most one a byte is read")
        _largest_page(file, raw)
        yield file


def batches(path: str | Path, columns: Sequence[str] | None, at_once: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file, at most `at_once` in a batch; raises as `open_parquet`.

    `columns`: as pyarrow takes them; None for all.
    """
    with open_parquet(path) as file, open(path, "rb") as raw:  # noqa: PTH123
        size = os.fstat(raw.fileno()).st_size
        rows = min(at_once, max(1, _BATCH_BYTES // max(1, _largest_page(file, raw))))
        total = 0
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            total += batch.nbytes
            if total > _RATIO * size + _BATCH_BYTES:
                raise Unpacks(f"Parquet of {size:,} bytes that unpacks to more than {_RATIO} times its size")
            yield batch


def _largest_page(file: pq.ParquetFile, raw: BinaryIO) -> int:
    """Return the size of the largest page, unpacked, in bytes; raises Unpacks where one is out of proportion."""
    largest = 0
    for chunks in _column_chunks(raw):
        if len(chunks) != file.metadata.num_columns:
            raise ValueError("Parquet with a damaged header")
        for index, (start, packed) in enumerate(chunks):
            is_list = file.schema.column(index).max_repetition_level > 0
            values = unpacked = 0
            for page in _pages(raw, start, packed):
                most = _PAGE_BYTES if page.unpacked > _RATIO * page.packed else _LARGEST_PAGE
                if page.unpacked > most:
                    raise Unpacks(f"Parquet with a page of {page.packed:,} bytes that unpacks to {page.unpacked:,}")
                largest = max(largest, page.unpacked)
                unpacked += page.unpacked
                values += page.values
            if is_list and values > _RATIO * unpacked + _ROWS:
                raise Unpacks(f"Parquet with lists of {values:,} values in {unpacked:,} bytes")
    return largest


def _column_chunks(raw: BinaryIO) -> Iterator[list[tuple[int, int]]]:
    """Yield for each group of rows the start and the size of its columns' chunks, in bytes; raises ValueError, Unpacks.

    Format: parquet.thrift's FileMetaData. pyarrow ends the process where `RowGroupMetaData.column` meets damage.
    """
    raw.seek(-8, os.SEEK_END)
    length = int.from_bytes(_reader(raw)(4), "little")
    if length > _FOOTER_BYTES:
        raise Unpacks(f"Parquet with a list of pages of {length:,} bytes; at most {_FOOTER_BYTES:,} are read")
    raw.seek(-8 - length, os.SEEK_END)
    footer = _struct(_reader(io.BytesIO(raw.read(length))), depth=0)
    for group in _part(footer, 4, list):
        chunks = []
        for column in _part(group, 1, list):
            about = _part(column, 3, dict)
            offsets = [_whole(about[number]) for number in (11, 9) if about.get(number)]
            chunks.append((min(offsets, default=0), _whole(about.get(7))))
        yield chunks


def _part(fields: object, number: int, kind: type[_Kind]) -> _Kind:
    if not isinstance(fields, dict) or not isinstance(part := fields.get(number), kind):
        raise ValueError("Parquet with a damaged header")
    return part


class _Page:
    """The sizes that a page states: packed, unpacked, in bytes, and its number of values."""

    def __init__(self, fields: dict[int, object]) -> None:
        self.unpacked, self.packed = (_whole(fields.get(number)) for number in (2, 3))
        # Of a data page, dictionary page or data page of version 2, the first field is the number of values.
        inner = next((each for number in (5, 7, 8) if isinstance(each := fields.get(number), dict)), {})
        self.values = _whole(inner.get(1))


def _whole(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("Parquet with a damaged header")
    return value


def _pages(raw: BinaryIO, start: int, size: int) -> Iterator[_Page]:
    """Yield the pages of a column chunk. Format: Thrift's compact protocol, parquet.thrift's PageHeader."""
    at = start
    while at < start + size:
        raw.seek(at)
        page = _Page(_struct(_reader(raw), depth=0))
        yield page
        at = raw.tell() + page.packed


def _reader(raw: BinaryIO) -> Callable[[int], bytes]:
    def read(count: int) -> bytes:
        if len(data := raw.read(count)) < count:
            raise ValueError("Parquet that ends within a header")
        return data

    return read


def _varint(read: Callable[[int], bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = read(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise ValueError("Parquet with a damaged number in a header")


def _struct(read: Callable[[int], bytes], depth: int) -> dict[int, object]:
    fields: dict[int, object] = {}
    number = 0
    while kind := (head := read(1)[0]) & 15:
        number = number + (head >> 4) if head >> 4 else _zigzag(_varint(read))
        fields[number] = _value(read, kind, depth) if kind > 2 else kind == 1
    return fields


def _zigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def _value(read: Callable[[int], bytes], kind: int, depth: int) -> object:
    """Read a value of a type: 3 byte, 4 to 6 whole numbers, 7 double, 8 bytes, 9 list, 12 structure; no others."""
    if kind == 12 and depth < _MAX_DEPTH:
        return _struct(read, depth + 1)
    if 4 <= kind <= 6:
        return _zigzag(_varint(read))
    if kind == 9 and depth < _MAX_DEPTH:
        head = read(1)[0]
        count = head >> 4 if head >> 4 < 15 else _varint(read)
        # A truth value (1, 2) is a byte in a list, and in the type of a field elsewhere.
        return [_value(read, max(head & 15, 3), depth + 1) for _ in range(count)]
    sizes = {3: 1, 7: 8}
    if kind in sizes or kind == 8:
        length = sizes.get(kind) or _varint(read)
        if length > 2**24:
            raise ValueError("Parquet with a header of more than 16 MB")
        return read(length) if length else b""
    raise ValueError("Parquet with a damaged header")
