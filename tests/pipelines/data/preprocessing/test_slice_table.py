"""Rows of slices: none is lost, their order does not matter, and rows of unchanged photos are reused."""

from __future__ import annotations

import numpy as np

from pipelines.data.faces.record import FaceRecord
from pipelines.data.preprocessing.slice_table import (
    ANALYSIS,
    GIVEN,
    HASH,
    SLICE_SCHEMA,
    analysis_key,
    slice_table,
    sort_rows,
    with_given,
)


def _rows(count: int) -> tuple[dict[str, list], list[FaceRecord]]:
    given = {name: [f"{name}-{row}" for row in range(count)] for name in GIVEN}
    given["identity"][0] = None
    given["domain"] = [None] * count
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


def test_rows_hold_metadata_and_measurements() -> None:
    given, records = _rows(10)
    table = slice_table(given, records, [f"key-{row}" for row in range(10)])
    assert table.schema.equals(SLICE_SCHEMA)
    by_id = {row["image_id"]: row for row in table.to_pylist()}
    assert by_id["image_id-3"]["reason"] == "no_face"
    assert by_id["image_id-3"]["embedding"] is None
    assert by_id["image_id-3"][ANALYSIS] == "key-3"
    assert by_id["image_id-4"]["keypoints"] == [4.0] * 10
    assert by_id["image_id-4"]["embedding"].index(1.0) == 4
    assert by_id["image_id-0"]["identity"] is None
    hashes = table[HASH].to_pylist()
    assert hashes == sorted(hashes)


def test_rows_do_not_depend_on_their_order() -> None:
    given, records = _rows(20)
    turned = {name: values[::-1] for name, values in given.items()}
    assert slice_table(given, records).equals(slice_table(turned, records[::-1]))


def test_an_earlier_row_keeps_its_measurements_and_takes_the_present_metadata() -> None:
    given, records = _rows(6)
    earlier = slice_table(given, records)
    renamed = {**given, "identity": ["another person"] * 6, "consent": [None] * 6}
    places = [earlier["image_id"].to_pylist().index(name) for name in given["image_id"]]
    now = sort_rows(with_given(earlier.take(places), renamed))
    assert now.equals(slice_table(renamed, records))


def test_an_analysis_is_keyed_by_version_photo_and_texts() -> None:
    keys = {analysis_key(*key) for key in [("v", "i", "p", "f"), ("w", "i", "p", "f"), ("v", "j", "p", "f")]}
    keys |= {analysis_key("v", "i", None, "f"), analysis_key("v", "i", "p", None), analysis_key("v", "i", "pf", None)}
    assert len(keys) == 6
    assert analysis_key("v", "i", "p", "f") in keys
