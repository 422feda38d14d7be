from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.metrics.identity import centroid, copy_paste, own_over_other, similarity


def at(*degrees: float) -> np.ndarray:
    """Unit vectors in a plane, at these angles."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1)


def test_similarity_is_the_mean_cosine_and_a_missing_face_counts_nothing() -> None:
    values = similarity(at(0, 0), np.array([True, False]), [at(0, 60), at(0, 60)])
    assert values == pytest.approx([0.75, 0.0])


@pytest.mark.parametrize(
    ("angle", "found", "expected"),
    [(0, True, 1.0), (20, True, 0.0), (40, True, -1.0), (10, True, 0.5), (0, False, 0.0)],
)
def test_copy_paste_of_a_reference_at_0_and_another_photo_at_40_degrees(
    angle: float, found: bool, expected: float
) -> None:
    assert copy_paste(at(angle), np.array([found]), at(0), [at(40)]) == pytest.approx([expected])


def test_a_perfect_model_is_nearer_to_its_own_people_every_time() -> None:
    gallery = np.eye(5)
    person = np.array([0, 3, 4, 1])
    assert own_over_other(gallery[person], np.ones(4, bool), person, gallery).mean() == 1.0
    swapped = own_over_other(gallery[[1, 3, 4, 1]], np.array([True, True, False, True]), person, gallery)
    assert swapped.tolist() == [0.0, 1.0, 0.0, 1.0]


def test_a_centroid_is_a_direction() -> None:
    assert centroid(at(0, 90)) == pytest.approx(at(45)[0])
