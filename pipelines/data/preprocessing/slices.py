"""Cut a dataset into slices; one task analyses one slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# Bounds the bytes that one task reads: a slice of large photos has fewer rows.
_SLICE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Slice:
    """Rows `start` to `stop` (exclusive) of one shard."""

    shard: str
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


def cut_slices(shards: list[Path], photos: int) -> list[Slice]:
    """Cut shards into slices of at most `photos` rows and about 64 MB; only the footers of shards are read.

    The cuts follow row groups and depend on the shard only: an unchanged shard keeps its slices, whatever the other
    shards and the number of workers are.
    """
    return [piece for shard in shards for piece in _cut(shard, photos)]


def read_slice(piece: Slice, columns: list[str], batch: int) -> Iterator[pa.RecordBatch]:
    """Yield a slice in batches of at most `batch` rows and about 64 MB (one row where photos are larger).

    At most one batch is in memory.
    """
    file = pq.ParquetFile(piece.shard, pre_buffer=False, buffer_size=2**20)
    try:
        at = 0
        for group in range(file.metadata.num_row_groups):
            row_group = file.metadata.row_group(group)
            end = at + row_group.num_rows
            if end > piece.start and at < piece.stop:
                fitting = max(1, _SLICE_BYTES * row_group.num_rows // max(row_group.total_byte_size, 1))
                size = min(batch, fitting) if "image" in columns else batch
                for rows in file.iter_batches(batch_size=size, row_groups=[group], columns=columns, use_threads=False):
                    low, high = max(piece.start - at, 0), min(piece.stop - at, rows.num_rows)
                    if low < high:
                        yield rows.slice(low, high - low)
                    at += rows.num_rows
                    if at >= piece.stop:
                        return
            at = end
    finally:
        file.close()


def _cut(shard: Path, photos: int) -> list[Slice]:
    metadata = pq.read_metadata(shard)
    pieces: list[tuple[int, float]] = []  # rows, bytes
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        rows, size = row_group.num_rows, row_group.total_byte_size
        parts = max(1, -(-rows // photos), -(-size // _SLICE_BYTES))
        bounds = [rows * part // parts for part in range(parts + 1)]
        pieces += [(high - low, size * (high - low) / max(rows, 1)) for low, high in pairwise(bounds)]
    slices: list[Slice] = []
    start = rows_held = 0
    bytes_held = 0.0
    for rows, size in pieces:
        if rows_held and (rows_held + rows > photos or bytes_held + size > _SLICE_BYTES):
            slices.append(Slice(str(shard), start, start + rows_held))
            start, rows_held, bytes_held = start + rows_held, 0, 0.0
        rows_held, bytes_held = rows_held + rows, bytes_held + size
    if rows_held:
        slices.append(Slice(str(shard), start, start + rows_held))
    return slices
