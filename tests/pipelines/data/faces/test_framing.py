"""The position of the stored square, and landmarks and boxes that move with its pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.data.faces.framing import encode_jpeg, frame_face


def test_the_largest_square_is_centred_on_the_face_as_far_as_the_photo_allows() -> None:
    frame = frame_face(300, 200, np.array([120, 40, 180, 120.0]), 100, 0.0)
    assert (frame.left, frame.top, frame.side) == (50.0, 0.0, 200.0)
    at_border = frame_face(300, 200, np.array([260, 40, 300, 120.0]), 100, 0.0)
    assert (at_border.left, at_border.side) == (100.0, 200.0)


def test_the_square_is_tightened_until_the_face_has_its_share() -> None:
    frame = frame_face(400, 400, np.array([180, 190, 210, 230.0]), 64, 0.4)
    box = frame.box(np.array([180, 190, 210, 230.0]))
    assert frame.side == pytest.approx(100)
    assert (box[3] - box[1]) / 64 == pytest.approx(0.4, abs=1e-5)
    untouched = frame_face(100, 100, np.array([20, 20, 80, 80.0]), 64, 0.4)
    assert untouched.side == 100


def test_a_wide_face_is_never_cut_off_by_tightening() -> None:
    frame = frame_face(200, 200, np.array([60, 90, 140, 110.0]), 64, 0.9)
    assert frame.side == 80
    assert frame.box(np.array([60, 90, 140, 110.0]))[[0, 2]] == pytest.approx([0, 64])


def test_points_stay_on_their_pixels_in_the_stored_picture() -> None:
    photo = np.zeros((240, 320, 3), np.uint8)
    photo[100:104, 200:204] = 255
    frame = frame_face(320, 240, np.array([180, 80, 240, 140.0]), 480, 0.3)
    stored = frame.cut(photo)
    ys, xs = np.nonzero(stored[..., 0] > 127)
    moved = frame.points(np.array([[202.0, 102.0]]))[0]
    assert stored.shape == (480, 480, 3)
    assert moved == pytest.approx([xs.mean() + 0.5, ys.mean() + 0.5], abs=0.6)


def test_a_frame_at_the_border_stays_inside_whatever_rounding_does() -> None:
    photo = np.zeros((97, 131, 3), np.uint8)
    for x in np.linspace(0, 131, 40):
        frame = frame_face(131, 97, np.array([x - 9.3, 80.1, x + 9.3, 97.7]), 64, 0.31)
        assert frame.cut(photo).shape == (64, 64, 3)


def test_the_stored_picture_is_a_jpeg_with_full_colour() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    again = Image.open(io.BytesIO(encode_jpeg(image, 95)))
    assert (again.format, again.mode, again.size) == ("JPEG", "RGB", (64, 64))
    assert again.layer[1][1:3] == (1, 1)
    assert encode_jpeg(image, 95) == encode_jpeg(image.copy(), 95)
