"""Processed rows are checked one by one, and each kind of damage fails the expectation for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params
from pipelines.core.row_schemas import PROCESSED_SCHEMA, REJECTED
from pipelines.data.validation.processed_frame import processed_frame
from pipelines.stages.validate_processed import Inputs, Outputs, run
from tests.pipelines.photos import Row, accepted_row, encoded, write_shards


def good_rows(people: int = 8, each: int = 3) -> list[Row]:
    """Accepted rows of several people and a rejected one of each."""
    picture = encoded(Image.new("RGB", (64, 64)))
    rows = [
        accepted_row(
            person * each + number,
            identity=f"p{person}",
            file_name=f"p{person}/{number}.jpg",
            split="test" if person < 2 else "train",
            image=picture,
            prompt="a person",
            face_prompt="neutral, facing the camera",
        )
        for person in range(people)
        for number in range(each)
    ]
    rejected = {
        "image_id": "f" * 64,
        "identity": "p0",
        "file_name": "p0/bad.jpg",
        "split": "test",
        "status": REJECTED,
        "reason": "unreadable",
    }
    return [*rows, rejected]


def write(folder: Path, rows: list[Row]) -> Path:
    half = len(rows) // 2
    return write_shards(folder, PROCESSED_SCHEMA, [rows[:half], rows[half:]])


def failed(params: Params, folder: Path, rows: list[Row]) -> tuple[str, list[str]]:
    with pytest.raises(StageFailed) as caught:
        run(params, Inputs(write(folder / "processed", rows)), Outputs(folder / "report"))
    verdict = json.loads((folder / "report" / "verdict.json").read_text())
    assert verdict["success"] is False
    return str(caught.value), verdict["failed"]


def test_good_rows_pass_and_the_verdict_is_stable(params: Params, tmp_path: Path) -> None:
    processed = write(tmp_path / "processed", good_rows())
    for name in ("one", "two"):
        verdict = run(params, Inputs(processed), Outputs(tmp_path / name))
    assert verdict.success
    assert verdict.rows == 25
    assert (tmp_path / "one/verdict.json").read_bytes() == (tmp_path / "two/verdict.json").read_bytes()
    assert str(tmp_path) not in (tmp_path / "one/verdict.json").read_text()
    observed = {item.name: item.observed for item in verdict.results}
    assert (observed["identities"], observed["test_identities"], observed["accepted_share"]) == (8, 2, 0.96)


def set_to(index: int, **values: Any) -> Callable[[list[Row]], None]:
    return lambda rows: rows[index].update(values)


# A change of good rows, and the expectation that it breaks.
DAMAGES = [
    (set_to(3, embedding=np.full(512, 0.1)), "embedding_not_unit"),
    (set_to(3, embedding=None), "embedding_not_unit"),
    (set_to(3, landmarks=np.full(136, np.nan)), "points_not_finite"),
    (set_to(3, keypoints=None), "points_not_finite"),
    (set_to(3, bbox=[-2.0, 0.0, 10.0, 10.0]), "box_outside_picture"),
    (set_to(3, bbox=[0.0, 0.0, 65.0, 10.0]), "box_outside_picture"),
    (set_to(3, expression="bored"), "unknown_expression"),
    (set_to(3, pose="sideways"), "unknown_pose"),
    (set_to(3, yaw=400.0), "yaw_out_of_range"),
    (set_to(3, roll=None), "roll_out_of_range"),
    (set_to(3, split="train", identity="p0"), "people_in_several_splits"),
    (set_to(3, split=None), "unknown_split"),
    (set_to(3, status="maybe"), "unknown_status"),
    (set_to(3, status=None), "without_status"),
    (set_to(-1, reason="ugly"), "unknown_reason"),
    (set_to(-1, reason=None), "reason_that_does_not_fit"),
    (set_to(3, reason="no_face"), "reason_that_does_not_fit"),
    (set_to(3, image_id=None), "without_image_id"),
    (set_to(4, image_id=f"{3:064x}", file_name="p1/0.jpg"), "repeated_rows"),
]


@pytest.mark.parametrize(("damage", "name"), DAMAGES)
def test_each_damage_breaks_its_expectation(params: Params, tmp_path: Path, damage: Callable, name: str) -> None:
    from pipelines.data.validation.processed_suite import processed_checks
    from pipelines.data.validation.run_checks import run_checks

    rows = good_rows()
    damage(rows)
    frame = processed_frame(write(tmp_path, rows))
    # Only the expectation in question, which is quick; the other tests run the whole suite.
    checks = [check for check in processed_checks(params.validate_processed) if check.name == name]
    verdict = run_checks("validate_processed", checks, frame, None)
    assert [item.name for item in verdict.failures()] == [name]


def test_all_failures_are_reported_at_once_with_bounds(params: Params, tmp_path: Path) -> None:
    rows = good_rows(people=3)
    for row in rows[:6]:
        row.update(status=REJECTED, reason="no_face")
    message, names = failed(params, tmp_path, rows)
    assert set(names) == {"accepted_share", "identities", "test_identities"}
    assert "accepted_share in column accepted: 0.3 < 0.8 (validate_processed.min_ok_share)" in message
    assert "identities in column accepted_identity: 1 < 4 (validate_processed.min_identities)" in message
    assert "\n" not in message


def test_the_share_of_open_labels_is_reported(params: Params, tmp_path: Path) -> None:
    from pipelines.data.validation.processed_suite import processed_checks
    from pipelines.data.validation.run_checks import run_checks

    def verdict_of(rows: list[Row], folder: str) -> dict[str, tuple[Any, bool]]:
        names = ("open_expression_share", "open_pose_share", "photos_of_known_motion", "unknown_expression")
        checks = [check for check in processed_checks(params.validate_processed) if check.name in names]
        frame = processed_frame(write(tmp_path / folder, rows))
        return {item.name: (item.observed, item.success) for item in run_checks("v", checks, frame, None).results}

    rows = good_rows()
    for row in rows[:6]:
        row.update(expression=None)
    rows[0].update(pose_source="a network")
    found = verdict_of(rows, "some")
    assert found["open_expression_share"] == (pytest.approx(0.25), True)
    assert found["open_pose_share"] == (pytest.approx(1 / 24, abs=1e-5), True)
    assert found["unknown_expression"][1]
    for row in rows[:-1]:
        row.update(expression=None)
    found = verdict_of(rows, "all")
    assert found["open_expression_share"] == (1.0, False)
    assert not found["photos_of_known_motion"][1]


def test_repeats_do_not_lower_the_accepted_share(params: Params, tmp_path: Path) -> None:
    rows = good_rows()
    for row in rows[-12:]:
        row.update(status=REJECTED, reason="duplicate")
    frame = processed_frame(write(tmp_path / "p", rows))
    assert frame["accepted"].mean() == 1.0


def test_rows_without_identities_and_none_accepted(params: Params, tmp_path: Path) -> None:
    rows = [row | {"identity": None, "status": REJECTED, "reason": "no_face", "image": None} for row in good_rows(2)]
    _, names = failed(params, tmp_path, rows)
    assert set(names) == {"accepted_share", "identities", "test_identities", "photos_of_known_motion"}


def test_fewer_rows_than_photos_fail(params: Params, tmp_path: Path) -> None:
    from pipelines.core.row_schemas import DATASET_SCHEMA

    faces = write_shards(tmp_path / "faces", DATASET_SCHEMA, [[{}] * 30])
    processed = write(tmp_path / "processed", good_rows())
    with pytest.raises(StageFailed, match=r"rows: 25 < 30"):
        run(params, Inputs(processed, faces), Outputs(tmp_path / "report"))
    with pytest.raises(UserError, match="no Parquet shards"):
        run(params, Inputs(tmp_path / "nothing"), Outputs(tmp_path / "report"))
