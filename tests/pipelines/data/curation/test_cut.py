"""Cut a face out of a photo without parts of other faces."""

from __future__ import annotations

import numpy as np

from pipelines.data.curation.cut import free_square

FACE = np.array([100, 100, 160, 180.0])


def _overlaps(square: tuple[int, ...], box: np.ndarray) -> bool:
    return bool(square[0] < box[2] and square[2] > box[0] and square[1] < box[3] and square[3] > box[1])


def test_the_square_contains_only_the_face() -> None:
    others = np.array([[300, 100, 360, 180.0], [10, 330, 60, 390]])
    square = free_square(640, 480, FACE, others)
    assert square is not None
    left, top, right, bottom = square
    assert 0 <= left <= FACE[0]
    assert FACE[2] <= right <= 640
    assert 0 <= top <= FACE[1]
    assert FACE[3] <= bottom <= 480
    assert abs((right - left) - (bottom - top)) <= 1
    assert right - left >= 1.4 * 80
    assert not any(_overlaps(square, box) for box in others)


def test_without_close_faces_the_square_is_the_largest() -> None:
    assert free_square(640, 480, FACE, np.array([[580, 10, 620, 60.0]])) == (0, 0, 480, 480)


def test_there_is_no_square_if_faces_touch() -> None:
    assert free_square(640, 480, FACE, np.array([[150, 100, 210, 180.0]])) is None
