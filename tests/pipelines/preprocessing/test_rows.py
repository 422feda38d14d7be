"""Records as Parquet rows: nothing lost, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipelines.faces.record import FaceRecord
from pipelines.preprocessing.rows import GIVEN, HASH, SLICE_SCHEMA, slice_table, write_atomically


def _rows(count: int) -> tuple[dict[str, list], list[FaceRecord]]:
    given = {name: [f"{name}-{row}" for row in range(count)] for name in GIVEN}
    given["identity"][0] = None
    records = [
        FaceRecord("rejected", "no_face", prompt="p")
        if row % 3 == 0
        else FaceRecord(
            "ok",
            image=bytes([row]),
            bbox=np.arange(4, dtype=np.float32),
            keypoints=np.full((5, 2), row, np.float32),
            landmarks=np.full((68, 2), row, np.float32),
            yaw=1.5,
            pitch=0.0,
            roll=-2.0,
            embedding=np.eye(512, dtype=np.float32)[row],
            det_score=0.9,
            n_faces=1,
            sharpness=33.0,
            expression="sad",
            detail="not stored",
        )
        for row in range(count)
    ]
    return given, records


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    given, records = _rows(10)
    table = slice_table(given, records)
    write_atomically(table, tmp_path / "s.parquet", 4)
    again = pq.read_table(tmp_path / "s.parquet")
    assert again.schema.equals(SLICE_SCHEMA)
    assert again.equals(table)
    by_id = {row["image_id"]: row for row in again.to_pylist()}
    assert by_id["image_id-3"]["reason"] == "no_face"
    assert by_id["image_id-3"]["embedding"] is None
    assert by_id["image_id-4"]["keypoints"] == [4.0] * 10
    assert by_id["image_id-4"]["embedding"].index(1.0) == 4
    assert by_id["image_id-0"]["identity"] is None
    hashes = again[HASH].to_pylist()
    assert hashes == sorted(hashes)


def test_the_same_rows_in_any_order_are_the_same_bytes(tmp_path: Path) -> None:
    given, records = _rows(20)
    turned = {name: values[::-1] for name, values in given.items()}
    write_atomically(slice_table(given, records), tmp_path / "a.parquet", 8)
    write_atomically(slice_table(turned, records[::-1]), tmp_path / "b.parquet", 8)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]
