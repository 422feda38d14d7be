"""Rows that were written before a column existed are read, with the column empty."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from pipelines.core.errors import UserError
from pipelines.core.row_schemas import PROCESSED_SCHEMA, read_rows
from pipelines.core.sections.data import Rights
from pipelines.data.export.rows import Selection, accepted_rows
from tests.pipelines.photos import accepted_row, write_shards


def _without(name: str) -> pa.Schema:
    return pa.schema([field for field in PROCESSED_SCHEMA if field.name != name])


def test_rows_of_the_first_release_have_no_turn(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "processed", _without("turned"), [[accepted_row(1), accepted_row(2)]])
    table = read_rows(folder, PROCESSED_SCHEMA, where=ds.field("status") == "ok")
    assert set(table.schema.names) == set(PROCESSED_SCHEMA.names)
    assert table["turned"].to_pylist() == [None, None]
    assert [row["image_id"] for row in accepted_rows(folder, Selection(Rights()))] == [f"{n:064x}" for n in (1, 2)]


def test_other_columns_are_required(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "processed", _without("yaw"), [[accepted_row(1)]])
    with pytest.raises(UserError, match="yaw"):
        read_rows(folder, PROCESSED_SCHEMA)
