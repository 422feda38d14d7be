"""Aligned crops, their landmarks, and landmark pictures."""

from __future__ import annotations

import numpy as np
import pytest

from model.face.face_geometry import (
    CROP_TEMPLATE,
    crop_landmarks,
    crop_matrix,
    face_crop,
    landmark_picture,
    similarity,
    transform,
)


def turn(degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


def face_shape() -> np.ndarray:
    """Return 68 points around the crop template: chin below, brows above, others in between."""
    shape = np.tile(np.array([0.5, 0.55]), (68, 1))
    angle = np.linspace(np.pi, 0, 17)
    shape[:17] = np.stack([0.5 + 0.3 * np.cos(angle), 0.5 + 0.35 * np.sin(angle)], axis=1)
    shape[17:27] = np.stack([np.linspace(0.25, 0.75, 10), np.full(10, 0.38)], axis=1)
    shape[27] = 0.5, 0.42
    return shape.astype(np.float32)


def test_similarity_is_recovered() -> None:
    matrix = turn(25, 1.7, (4.0, -3.0))
    points = np.random.default_rng(0).uniform(0, 1, (5, 2))
    assert np.allclose(similarity(points, transform(points, matrix)), matrix, atol=1e-5)


def test_keypoints_are_mapped_to_the_template() -> None:
    keypoints = transform(CROP_TEMPLATE, turn(-15, 90, (30, 40)))
    assert np.allclose(transform(keypoints, crop_matrix(keypoints)), CROP_TEMPLATE, atol=1e-4)


def test_landmarks_do_not_depend_on_position_and_rotation_of_the_face() -> None:
    shape = face_shape()
    for matrix in (turn(0, 60, (0, 0)), turn(30, 200, (50, 10))):
        found = crop_landmarks(transform(shape, matrix), transform(CROP_TEMPLATE, matrix))
        assert np.allclose(found, shape, atol=1e-3)


@pytest.mark.parametrize(("scale", "degrees"), [(64, 0), (80, 20), (640, -20), (1500, 10)])
def test_the_crop_contains_only_the_face(scale: float, degrees: float) -> None:
    matrix = turn(degrees, scale, (0.3 * scale, 0.3 * scale))
    side = int(scale * 1.9)
    rows, columns = np.mgrid[:side, :side]
    points = np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(np.float64)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    unit = transform(points, inverse).reshape(side, side, 2)
    # Colours encode coordinates in the unit frame, so that those of the crop can be checked.
    image = np.clip(np.concatenate([unit, np.full((side, side, 1), 0.9)], axis=-1) * 255, 0, 255).astype(np.uint8)
    crop = face_crop(image, transform(CROP_TEMPLATE, matrix), transform(face_shape(), matrix), 64)
    assert crop.shape == (64, 64, 3)
    assert (crop[:2, :2] == 127).all()
    assert (crop[-2:, :2] == 127).all()
    inside = crop[..., 2] > 200
    assert 0.2 < inside.mean() < 0.7
    y, x = np.nonzero(inside)
    assert np.abs(crop[y, x, 0] / 255 - (x + 0.5) / 64).max() < 0.03
    assert np.abs(crop[y, x, 1] / 255 - (y + 0.5) / 64).max() < 0.03
    assert y.min() / 64 < 0.3
    assert y.max() / 64 > 0.75


def test_a_strong_reduction_averages() -> None:
    """A fine checkerboard becomes grey, not one of its two colours."""
    scale = 1024
    matrix = turn(0, scale, (0, 0))
    board = (np.indices((scale, scale)).sum(axis=0) % 2 * 255).astype(np.uint8)
    picture = np.repeat(board[..., None], 3, axis=2)
    crop = face_crop(picture, transform(CROP_TEMPLATE, matrix), transform(face_shape(), matrix), 64)
    assert np.abs(crop.astype(int) - 127).max() <= 12


def test_landmark_picture_has_one_pixel_per_point() -> None:
    shape = np.stack([np.arange(68) / 68, np.linspace(0, 0.99, 68)], axis=1)
    picture = landmark_picture(shape)
    assert picture.shape == (1, 96, 96)
    assert set(np.unique(picture)) == {-1.0, 1.0}
    assert (picture > 0).sum() == 68
    x, y = shape[10]
    assert picture[0, int(y * 96), int(x * 96)] == 1


def test_points_outside_are_drawn_on_the_border() -> None:
    shape = np.full((68, 2), 0.5)
    shape[0] = -0.2, 1.7
    assert landmark_picture(shape)[0, 95, 0] == 1


def test_hair_is_kept_above_and_beside_the_head_but_nothing_below_it() -> None:
    image = np.full((200, 200, 3), 250, np.uint8)
    matrix = turn(0, 120, (40, 40))
    faces = [
        face_crop(image, transform(CROP_TEMPLATE, matrix), transform(face_shape(), matrix), 64, hair) != 127
        for hair in (False, True)
    ]
    alone, with_hair = (face.all(-1) for face in faces)
    assert with_hair[alone].mean() > 0.99
    assert with_hair[2, 32]
    assert with_hair[30, 7]
    assert not alone[2, 32]
    assert not alone[30, 7]
    # Shoulders and what stands beside the chin stay out.
    assert not with_hair[60:].any()
    assert not with_hair[54, [6, 57]].any()
