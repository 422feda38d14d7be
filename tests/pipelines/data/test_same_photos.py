"""Processed photos belong to a dataset if all rows do, with the same people, consent and licences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import StageFailed
from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA
from pipelines.data.same_photos import check_same_photos

ROWS = [{"image_id": str(n), "identity": f"p{n % 2}", "file_name": f"{n}.jpg", "consent": "yes"} for n in range(4)]


def write(folder: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    for number, part in enumerate((rows[::2], rows[1::2])):
        table = pa.Table.from_pylist([{**dict.fromkeys(schema.names), **row} for row in part], schema)
        pq.write_table(table, folder / f"part-{number}.parquet")
    return folder


def test_order_and_shards_do_not_matter(tmp_path: Path) -> None:
    faces = write(tmp_path / "faces", DATASET_SCHEMA, ROWS)
    check_same_photos(faces, write(tmp_path / "processed", PROCESSED_SCHEMA, ROWS[::-1]))


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (ROWS[:3], r"1 photo of .*faces not in .*processed \(such as 3\)"),
        ([*ROWS, {**ROWS[0], "image_id": "9"}], r"1 photo of .*processed not in .*faces \(such as 9\)"),
        ([*ROWS, ROWS[0]], "have not the same number of photos"),
        ([{**ROWS[0], "consent": "withdrawn"}, *ROWS[1:]], r"1 photo .*another person, consent or licence"),
        ([{**ROWS[0], "identity": None}, *ROWS[1:]], r"such as 0.*another person"),
    ],
)
def test_other_rows_or_labels_are_refused(tmp_path: Path, rows: list[dict[str, Any]], named: str) -> None:
    faces = write(tmp_path / "faces", DATASET_SCHEMA, ROWS)
    with pytest.raises(StageFailed, match=rf"{named}.*repro preprocess"):
        check_same_photos(faces, write(tmp_path / "processed", PROCESSED_SCHEMA, rows))
