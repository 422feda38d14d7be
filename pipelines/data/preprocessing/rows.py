"""Records as rows of a slice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.records import PROCESSED_SCHEMA
from pipelines.data.faces.record import FaceRecord
from pipelines.data.preprocessing.partition import partition_hash

# Copied from the dataset's row; everything else is measured, or known only when buckets are written.
GIVEN = ("image_id", "identity", "file_name", "source", "licence", "consent")
HASH = "partition_hash"
LOOK = "look"
# A slice keeps the key by which rows find their bucket, and no split: how many buckets and which people are held out
# may change without looking at any photo again. LOOK says what was looked at and how; null where nothing was.
SLICE_SCHEMA = pa.schema(
    [
        *(column for column in PROCESSED_SCHEMA if column.name != "split"),
        (HASH, pa.int64()),
        (LOOK, pa.string()),
    ]
)

_LOOK_DIGITS = 32


def look_key(version: str, image_id: str, prompt: str | None, face_prompt: str | None) -> str:
    """Return the key of one look: what is measured on a photo depends on these alone."""
    asked = json.dumps([version, image_id, prompt, face_prompt])
    return hashlib.sha256(asked.encode()).hexdigest()[:_LOOK_DIGITS]


def slice_table(
    given: dict[str, list[Any]], records: Sequence[FaceRecord], looks: Sequence[str | None] | None = None
) -> pa.Table:
    """Return rows of a slice (SLICE_SCHEMA), in the order of their partition hash.

    `given` holds the columns GIVEN of the dataset's rows, `records` what was found in each, `looks` their keys.
    """
    columns: list[pa.Array] = []
    for column in SLICE_SCHEMA:
        if column.name == HASH:
            columns.append(_hashes(given))
        elif column.name == LOOK:
            columns.append(pa.array(looks or [None] * len(records), column.type))
        elif column.name in GIVEN:
            columns.append(pa.array(given[column.name], column.type))
        else:
            columns.append(_array([getattr(record, column.name) for record in records], column.type))
    return in_order(pa.Table.from_arrays(columns, schema=SLICE_SCHEMA))


def given_anew(rows: pa.Table, given: dict[str, list[Any]]) -> pa.Table:
    """Return rows of an earlier slice with what the dataset says of their photos now (columns GIVEN)."""
    for name in GIVEN:
        rows = rows.set_column(SLICE_SCHEMA.get_field_index(name), name, pa.array(given[name], pa.string()))
    return rows.set_column(SLICE_SCHEMA.get_field_index(HASH), HASH, _hashes(given)).cast(SLICE_SCHEMA)


def in_order(rows: pa.Table) -> pa.Table:
    """Return rows of a slice by partition hash, file name and image id."""
    return rows.sort_by([(HASH, "ascending"), ("file_name", "ascending"), ("image_id", "ascending")])


def _hashes(given: dict[str, list[Any]]) -> pa.Array:
    keys = [partition_hash(*key) for key in zip(given["identity"], given["image_id"], strict=True)]
    return pa.array(keys, pa.int64())


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(kind):
        values = [None if value is None else np.asarray(value, np.float32).reshape(-1) for value in values]
    return pa.array(values, kind)
