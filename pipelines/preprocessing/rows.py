"""Records as Parquet rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.faces.record import FaceRecord
from pipelines.preprocessing.partition import partition_hash
from pipelines.records import PROCESSED_SCHEMA

# Copied from the dataset's row; everything else is measured, or known only when buckets are written.
GIVEN = ("image_id", "identity", "file_name", "source", "licence", "consent")
HASH = "partition_hash"
# A slice keeps the key by which rows find their bucket, and no split: how many buckets and which people are held out
# may change without looking at any photo again.
SLICE_SCHEMA = pa.schema([*(column for column in PROCESSED_SCHEMA if column.name != "split"), (HASH, pa.int64())])

_REPEATING = ["identity", "split", "status", "reason", "expression", "prompt", "face_prompt"]
_TEXTS = (*GIVEN, *_REPEATING)


def slice_table(given: dict[str, list[Any]], records: Sequence[FaceRecord]) -> pa.Table:
    """Return the rows of a slice (SLICE_SCHEMA), in the order of their partition hash.

    `given` holds the columns GIVEN of the dataset's rows, `records` what was found in each.
    """
    columns: list[pa.Array] = []
    for column in SLICE_SCHEMA:
        if column.name == HASH:
            keys = [partition_hash(*key) for key in zip(given["identity"], given["image_id"], strict=True)]
            columns.append(pa.array(keys, column.type))
        elif column.name in GIVEN:
            columns.append(pa.array(given[column.name], column.type))
        else:
            columns.append(_array([getattr(record, column.name) for record in records], column.type))
    table = pa.Table.from_arrays(columns, schema=SLICE_SCHEMA)
    return table.sort_by([(HASH, "ascending"), ("file_name", "ascending"), ("image_id", "ascending")])


def write_atomically(table: pa.Table, file: Path, row_group: int) -> None:
    """Write a Parquet file that is either whole or not there; the same rows give the same bytes."""
    names = table.schema.names
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        pq.write_table(
            table,
            part,
            row_group_size=row_group,
            # JPEG does not get smaller.
            compression={name: "NONE" if name == "image" else "ZSTD" for name in names},
            use_dictionary=[name for name in _REPEATING if name in names],
            write_statistics=[name for name in names if name in _TEXTS or name == HASH],
        )
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(kind):
        values = [None if value is None else np.asarray(value, np.float32).reshape(-1) for value in values]
    return pa.array(values, kind)
