"""The people and photos whose data is deleted, and their rows in tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.files import atomic_file

_ID = re.compile(r"[0-9a-f]{64}")
_BATCH = 64


@dataclass(frozen=True)
class Subject:
    """People by name and photos by `image_id`, the sha256 of a photo's bytes."""

    identities: frozenset[str]
    image_ids: frozenset[str]

    def mask(self, rows: pa.Table | pa.RecordBatch) -> pa.Array:
        """Return whether each row is the subject's; the table has `image_id` and maybe `identity`."""
        mask = pc.is_in(rows["image_id"], value_set=pa.array(sorted(self.image_ids), pa.string()))
        if "identity" in rows.schema.names and self.identities:
            named = pc.is_in(rows["identity"], value_set=pa.array(sorted(self.identities), pa.string()))
            mask = pc.or_(mask, named)
        return mask.fill_null(False)


@dataclass(frozen=True)
class SubjectRows:
    """The subject's photos in a table, their splits, and whether the table is part of a dataset or derived from it."""

    image_ids: frozenset[str]
    splits: frozenset[str]
    in_dataset: bool


def subject_of(identities: Iterable[str], image_ids: Iterable[str]) -> Subject:
    """Return the subject of a command line; UserError where it names none or an id is not a sha256 in hex."""
    people, photos = frozenset(identities), frozenset(name.strip().lower() for name in image_ids)
    for name in photos:
        if not _ID.fullmatch(name):
            raise UserError(f"--image-id {name}: expected the 64 hexadecimal digits of a row's image_id")
    if not people and not photos:
        raise UserError("no person or photo named: give --identity NAME or --image-id ID, each as often as needed")
    return Subject(people, photos)


def rows_in(source: Any, subject: Subject) -> SubjectRows | None:
    """Return the subject's rows in a file (path or open file); None if it is no Parquet file or has no `image_id`.

    Reads only the columns image_id, identity and split.
    """
    try:
        file = pq.ParquetFile(source, pre_buffer=False)
    except (pa.ArrowInvalid, pa.ArrowException):
        return None
    with file:
        names = file.schema_arrow.names
        if "image_id" not in names:
            return None
        table = file.read(columns=[name for name in ("image_id", "identity", "split") if name in names])
        found = table.filter(subject.mask(table))
        splits = frozenset(found["split"].to_pylist()) if "split" in names else frozenset()
        ids = frozenset(name for name in found["image_id"].to_pylist() if name is not None)
        return SubjectRows(ids, frozenset(name for name in splits if name), "n_bytes" in names)


def write_without(source: Any, destination: Path, subject: Subject) -> int:
    """Copy a Parquet table without a subject's rows, in batches; return the number of rows left.

    If no row is left, no file is written. The same table and subject give the same bytes.
    """
    with pq.ParquetFile(source, pre_buffer=False) as file:
        schema = file.schema_arrow
        named = file.read(columns=[name for name in ("image_id", "identity") if name in schema.names])
        rows = int(pc.sum(pc.invert(subject.mask(named)), min_count=0).as_py())
        if not rows:
            return 0
        with (
            atomic_file(destination) as part,
            pq.ParquetWriter(
                part,
                schema,
                compression={name: "NONE" if name == "image" else "ZSTD" for name in schema.names},
                use_dictionary=[name for name in ("identity", "licence", "consent") if name in schema.names],
                write_statistics=[name for name in schema.names if name != "image"],
            ) as writer,
        ):
            for group in range(file.metadata.num_row_groups):
                batches = file.iter_batches(batch_size=_BATCH, row_groups=[group])
                kept = [batch.filter(pc.invert(subject.mask(batch))) for batch in batches]
                table = pa.Table.from_batches([batch for batch in kept if batch.num_rows], schema=schema)
                if table.num_rows:
                    writer.write_table(table)
        return rows
