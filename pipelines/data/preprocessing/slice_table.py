"""Make the rows of a slice: columns copied from the dataset, and results measured on the photo."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.row_schemas import PROCESSED_SCHEMA
from pipelines.data.faces.record import FaceRecord
from pipelines.data.preprocessing.partition import partition_hash

# Copied from the dataset's row; all other columns are measured, or added when buckets are written.
GIVEN = ("image_id", "identity", "file_name", "source", "licence", "consent")
HASH = "partition_hash"
ANALYSIS = "analysis"
# What the source of the photo states; `domain` is what the photo seems to be.
STATED = "stated_domain"
# A slice stores the partition hash instead of the split, so the number of buckets and the people held out may change
# without analysing any photo again. ANALYSIS is the row's `analysis_key`, null where the photo is a duplicate.
SLICE_SCHEMA = pa.schema(
    [
        *(column for column in PROCESSED_SCHEMA if column.name not in ("split", "photo_key")),
        (STATED, pa.string()),
        (HASH, pa.int64()),
        (ANALYSIS, pa.string()),
    ]
)

_KEY_DIGITS = 32


def analysis_key(version: str, image_id: str, prompt: str | None, face_prompt: str | None) -> str:
    """Return the key of an analysis (32 hex digits); its result depends only on these arguments."""
    inputs = json.dumps([version, image_id, prompt, face_prompt])
    return hashlib.sha256(inputs.encode()).hexdigest()[:_KEY_DIGITS]


def slice_table(
    given: dict[str, list[Any]], records: Sequence[FaceRecord], keys: Sequence[str | None] | None = None
) -> pa.Table:
    """Return the rows of a slice (SLICE_SCHEMA), sorted by partition hash.

    `given` holds the columns GIVEN of the dataset's rows, `records` their analyses and `keys` their analysis keys.
    """
    columns: list[pa.Array] = []
    for column in SLICE_SCHEMA:
        if column.name == HASH:
            columns.append(_hashes(given))
        elif column.name == ANALYSIS:
            columns.append(pa.array(keys or [None] * len(records), column.type))
        elif column.name == STATED:
            columns.append(pa.array(given["domain"], column.type))
        elif column.name in GIVEN:
            columns.append(pa.array(given[column.name], column.type))
        else:
            columns.append(_array([getattr(record, column.name) for record in records], column.type))
    return sort_rows(pa.Table.from_arrays(columns, schema=SLICE_SCHEMA))


def with_given(rows: pa.Table, given: dict[str, list[Any]]) -> pa.Table:
    """Return the rows of an earlier slice with the columns GIVEN as the dataset has them now."""
    for name in GIVEN:
        rows = rows.set_column(SLICE_SCHEMA.get_field_index(name), name, pa.array(given[name], pa.string()))
    rows = rows.set_column(SLICE_SCHEMA.get_field_index(STATED), STATED, pa.array(given["domain"], pa.string()))
    return rows.set_column(SLICE_SCHEMA.get_field_index(HASH), HASH, _hashes(given)).cast(SLICE_SCHEMA)


def sort_rows(rows: pa.Table) -> pa.Table:
    """Return the rows of a slice sorted by partition hash, file name and image id."""
    return rows.sort_by([(HASH, "ascending"), ("file_name", "ascending"), ("image_id", "ascending")])


def _hashes(given: dict[str, list[Any]]) -> pa.Array:
    keys = [partition_hash(*key) for key in zip(given["identity"], given["image_id"], strict=True)]
    return pa.array(keys, pa.int64())


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(kind):
        values = [None if value is None else np.asarray(value, np.float32).reshape(-1) for value in values]
    return pa.array(values, kind)
