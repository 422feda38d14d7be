from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.metrics.multi_person import score_picture

PHOTOS = [np.eye(3)[[0]], np.eye(3)[[1]]]


def test_both_people_present_in_any_order() -> None:
    for faces in (np.eye(3)[[0, 1]], np.eye(3)[[1, 0]]):
        score = score_picture(faces, PHOTOS)
        assert (score.multi_id_similarity, score.multi_id_min, score.count_accuracy, score.leakage) == (1, 1, 1, 0)
    assert score.assigned == (1, 0)
    three = score_picture(np.eye(3), PHOTOS)
    assert (three.multi_id_similarity, three.count_accuracy) == (1, 0)


def test_a_missing_face_counts_nothing() -> None:
    score = score_picture(np.eye(3)[[1]], PHOTOS)
    assert score.assigned == (-1, 0)
    assert (score.multi_id_similarity, score.multi_id_min, score.count_accuracy, score.leakage) == (0.5, 0, 0, 0)
    empty = score_picture(np.zeros((0, 3)), PHOTOS)
    assert (empty.multi_id_similarity, empty.count_accuracy, empty.leakage) == (0, 0, 0)


def test_the_assignment_is_the_best_for_both_and_not_greedy() -> None:
    # Face 0 is a little nearer to person 0, but face 1 resembles only person 0.
    faces = np.array([[0.8, 0.6, 0.0], [0.7, -0.7, 0.14]])
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    assert score_picture(faces, PHOTOS).assigned == (1, 0)


def test_leakage_is_the_likeness_to_the_other_person() -> None:
    faces = np.array([[0.8, 0.6, 0.0], [0.0, 1.0, 0.0]])
    score = score_picture(faces, PHOTOS)
    assert score.leakage == pytest.approx((0.6 + 0.0) / 2)
    assert score.own == pytest.approx((0.8, 1.0))
