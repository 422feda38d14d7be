"""Write Parquet shards atomically, numbered in the order in which they are added.

A shard is rewritten only where people are merged, or forgotten.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.files import atomic_file
from pipelines.core.formats.rows import stating
from pipelines.core.formats.table import DATASET
from pipelines.core.people import normal_name
from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows
from pipelines.core.words import nearest

_NAME = re.compile(r"faces-(\d{5,})\.parquet")
# Small row groups let a reader take a few hundred photos at a time.
_GROUP_ROWS = 256
_GROUP_BYTES = 16 * 2**20
_REPEATING = ["identity", "format", "source", "licence", "consent"]
# Pictures are compressed already, and statistics of their bytes are useless.
_OPTIONS: dict[str, Any] = {
    "compression": {name: "NONE" if name == "image" else "ZSTD" for name in DATASET_SCHEMA.names},
    "use_dictionary": _REPEATING,
    "write_statistics": [name for name in DATASET_SCHEMA.names if name != "image"],
}

Row = dict[str, Any]


class RollingWriter:
    """Writes rows into Parquet files of about `shard_bytes` of pictures each, in row groups of bounded size.

    Subclasses name the files (`part`) and publish complete ones (`complete`).
    """

    def __init__(self, schema: pa.Schema, shard_bytes: int, group_rows: int, group_bytes: int, **options: Any) -> None:
        self._schema, self._options = schema, options
        self._shard_bytes, self._group_rows, self._group_bytes = shard_bytes, group_rows, group_bytes
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[Row] = []
        self._bytes = self._waiting = 0

    def part(self) -> Path:
        """Return the path of the file being written."""
        raise NotImplementedError

    def complete(self) -> None:
        """Publish the file that has been written."""
        raise NotImplementedError

    def append(self, row: Row, size: int) -> None:
        """Add a row whose picture has `size` bytes."""
        if self._bytes and self._bytes + size > self._shard_bytes:
            self.end_shard()
        self._rows.append(row)
        self._bytes += size
        self._waiting += size
        if len(self._rows) >= self._group_rows or self._waiting >= self._group_bytes:
            self._flush()

    def end_shard(self) -> None:
        """Complete the file being written, if it has rows."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self.complete()
            self._bytes = 0

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.part(), self._schema, **self._options)
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()
        self._waiting = 0


class ShardWriter(RollingWriter):
    """Writes rows of DATASET_SCHEMA in order into shards of about `shard_bytes` of pictures.

    A shard gets its name when it is complete. The same rows in the same order give the same files.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        super().__init__(
            stating(DATASET, DATASET_SCHEMA),
            shard_bytes,
            _GROUP_ROWS,
            _GROUP_BYTES,
            **_OPTIONS,
        )
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".faces-*.part"):
            part.unlink()  # left by a killed run
        self.folder = folder
        self.written: list[Path] = []
        numbers = [int(match[1]) for path in folder.glob("*.parquet") if (match := _NAME.fullmatch(path.name))]
        self._number = max(numbers, default=-1) + 1

    def add(self, row: Row) -> None:
        """Append a row; `n_bytes` is the size of its `image`."""
        self.append(row, row["n_bytes"])

    def part(self) -> Path:
        """Return the hidden path of the shard being written."""
        return self.folder / f".faces-{self._number:05d}.part"

    def complete(self) -> None:
        """Give the shard its name; raise UserError where another process has made a file of that name."""
        shard = self.folder / f"faces-{self._number:05d}.parquet"
        if shard.exists():
            raise UserError(f"{shard}: another process made this file meanwhile; run one ingest at a time")
        self.part().rename(shard)
        self.written.append(shard)
        self._number += 1

    def close(self) -> None:
        """Complete the shard being written, if it has rows."""
        self.end_shard()

    def abandon(self) -> None:
        """Delete the shard being written."""
        if self._writer is not None:
            # On a full disk the footer cannot be written either; the part is deleted all the same.
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None
        self.part().unlink(missing_ok=True)


def merge_people(faces: Path, kept: str, others: Collection[str]) -> int:
    """Give the photos of `others` the name `kept` in every shard of `faces`; return how many.

    Shards without them stay as they are. A call that was killed is finished by the next. Raises UserError where a name
    has no photo; then nothing is changed.
    """
    files = [Path(file) for file in open_rows(faces, DATASET_SCHEMA).files]
    present = {file: pq.read_table(file, columns=["identity"])["identity"].to_pylist() for file in files}
    known = {normal_name(name): name for names in present.values() for name in names if name is not None}
    wanted = {normal_name(name) for name in others}
    for name in (kept, *others):
        if normal_name(name) not in known:
            near = ", ".join(nearest(name, known)) or "other names"
            raise UserError(
                f"{faces}: no photo of {name!r}; there are {near}. Where an earlier merge was interrupted, "
                "`dynamicid dataset publish` makes the version of what it did"
            )
    if normal_name(kept) in wanted:
        raise UserError(f"{kept!r}: named twice; expected the name to keep, then the other names of this person")
    changed = 0
    for file, names in present.items():
        if count := sum(normal_name(name) in wanted for name in names if name is not None):
            _rename(file, known[normal_name(kept)], wanted)
            changed += count
    return changed


def _rename(shard: Path, kept: str, others: Collection[str | None]) -> None:
    column = DATASET_SCHEMA.get_field_index("identity")
    with (
        pq.ParquetFile(shard, pre_buffer=False) as file,
        atomic_file(shard) as part,
        pq.ParquetWriter(part, file.schema_arrow, **_OPTIONS) as writer,
    ):
        for group in range(file.metadata.num_row_groups):
            rows = file.read_row_group(group)
            names = [kept if normal_name(name) in others else name for name in rows["identity"].to_pylist()]
            writer.write_table(rows.set_column(column, "identity", pa.array(names, pa.string())))
