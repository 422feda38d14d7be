"""The choice of a face, and sharpness."""

from __future__ import annotations

import cv2
import numpy as np

from pipelines.data.faces.protocols import Detection
from pipelines.data.faces.quality import choose_face, sharpness


def _face(x0: float, y0: float, x1: float, y1: float, score: float = 0.9) -> Detection:
    return Detection(np.array([x0, y0, x1, y1], np.float32), np.zeros((5, 2), np.float32), score)


def test_the_largest_face_is_chosen_or_several_are_rejected() -> None:
    small, large = _face(0, 0, 10, 10, 0.99), _face(0, 0, 30, 30, 0.6)
    assert choose_face([small, large], "largest") == (large, None)
    assert choose_face([small, large], "reject") == (None, "several_faces")
    assert choose_face([small], "reject") == (small, None)
    assert choose_face([], "largest") == (None, "no_face")


def test_blur_lowers_sharpness_and_resolution_hardly_changes_it() -> None:
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(0, 255, (32, 32), np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)
    photo = np.repeat(coarse[..., None], 3, axis=2)
    box = np.array([32, 32, 224, 224.0])
    sharp = sharpness(photo, box)
    assert sharpness(cv2.GaussianBlur(photo, (0, 0), 6), box) < 0.2 * sharp
    double = cv2.resize(photo, (512, 512), interpolation=cv2.INTER_CUBIC)
    assert abs(sharpness(double, box * 2) / sharp - 1) < 0.2


def test_a_box_beside_the_picture_is_not_sharp() -> None:
    assert sharpness(np.zeros((50, 50, 3), np.uint8), np.array([60, 60, 80, 80.0])) == 0.0
