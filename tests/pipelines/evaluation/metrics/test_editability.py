from __future__ import annotations

import numpy as np

from model.face.face_prompts import POSES
from pipelines.evaluation.metrics.editability import confusion, correct, yaw_error


def test_a_picture_without_a_face_is_wrong_and_other_cells_have_no_value() -> None:
    asked, read = np.array([1, 1, 1, 1]), np.array([1, 2, 1, 1])
    values = correct(asked, read, np.array([True, True, False, True]), np.array([True, True, True, False]))
    assert values[:3].tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(values[3])


def test_the_yaw_error_is_in_degrees_and_largest_for_a_missing_face() -> None:
    asked = np.array([POSES.index(pose) for pose in ("left", "left", "front", "front")])
    yaw = np.array([-50.0, np.nan, np.nan, 12.0])
    found, counts = np.array([True, False, False, True]), np.array([True, True, True, True])
    assert yaw_error(asked, yaw, found, counts).tolist() == [10.0, 120.0, 60.0, 12.0]
    assert np.isnan(yaw_error(asked, yaw, found, ~counts)).all()


def test_the_confusion_has_a_column_for_missing_faces() -> None:
    table = confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, -1]), np.array([True, True, True, False]), 2)
    assert table.tolist() == [[1, 1, 0], [0, 1, 1]]
