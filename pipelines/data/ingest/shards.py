"""Parquet shards that are whole or not there, numbered in the order they were added, never rewritten."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.records import DATASET_SCHEMA

_NAME = re.compile(r"faces-(\d{5,})\.parquet")
# Small groups let a reader take some hundred photos at a time; metadata alone is read past the image column.
_GROUP_ROWS = 256
_GROUP_BYTES = 16 * 2**20
_REPEATING = ["identity", "format", "source", "licence", "consent"]

Row = dict[str, object]


def next_number(folder: Path) -> int:
    """Return the number after the highest shard of `folder`, 0 where there is none."""
    numbers = [int(match.group(1)) for path in folder.glob("*.parquet") if (match := _NAME.fullmatch(path.name))]
    return max(numbers, default=-1) + 1


class ShardWriter:
    """Writes rows of DATASET_SCHEMA in order, closing a shard when its pictures reach `shard_bytes`.

    A shard appears under its name when it is complete. The same rows added in the same order give the same files.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".faces-*.part"):
            part.unlink()  # what a killed run left
        self.folder = folder
        self.written: list[Path] = []
        self._shard_bytes = shard_bytes
        self._number = next_number(folder)
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[Row] = []
        self._group_bytes = 0
        self._bytes = 0

    def add(self, row: Row) -> None:
        """Append a row; `n_bytes` is the size of its `image`."""
        size = row["n_bytes"]
        if not isinstance(size, int):
            raise TypeError(f"n_bytes {size!r}: expected an int")
        if self._bytes and self._bytes + size > self._shard_bytes:
            self.close()
        self._rows.append(row)
        self._bytes += size
        self._group_bytes += size
        if len(self._rows) >= _GROUP_ROWS or self._group_bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Complete the present shard, if it has rows."""
        self._flush()
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        shard = self._shard()
        if shard.exists():
            raise UserError(f"{shard}: it appeared while it was being written; run one ingest at a time")
        self._part().rename(shard)
        self.written.append(shard)
        self._number += 1
        self._bytes = 0

    def abandon(self) -> None:
        """Drop the shard that is not complete."""
        if self._writer is not None:
            # On a full disk the footer cannot be written either, and the part must go all the same.
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None
        self._part().unlink(missing_ok=True)

    def _shard(self) -> Path:
        return self.folder / f"faces-{self._number:05d}.parquet"

    def _part(self) -> Path:
        return self.folder / f".faces-{self._number:05d}.part"

    def _flush(self) -> None:
        if not self._rows:
            return
        names = DATASET_SCHEMA.names
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._part(),
                DATASET_SCHEMA,
                # Pictures are compressed already, and no statistics of their bytes are of use.
                compression={name: "NONE" if name == "image" else "ZSTD" for name in names},
                use_dictionary=_REPEATING,
                write_statistics=[name for name in names if name != "image"],
            )
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=DATASET_SCHEMA))
        self._rows.clear()
        self._group_bytes = 0
