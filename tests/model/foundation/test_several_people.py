"""Faces belong to people by place; each is judged by what it was asked for; a missing face is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from model.foundation.people import Groups
from model.foundation.readers import FaceReadings
from model.foundation.reconstruction import measure_small
from model.foundation.several_people import Asked, asked_of, assign, score

WIDTH = 96


def five(*middles: float) -> np.ndarray:
    """Return key points (F, 5, 2) of faces around these x."""
    points = np.zeros((len(middles), 5, 2), np.float32)
    points[..., 0] = np.array(middles)[:, None]
    return points


class Reader:
    """Finds the faces of a picture by its first pixel and reads expression 1 left of the middle, else 2; pose 3."""

    def __init__(self, faces: dict[int, np.ndarray]) -> None:
        self.faces = faces

    def all_keypoints(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self.faces[int(image[0, 0, 0])] for image in images]

    def read(self, images: Sequence[np.ndarray], keypoints: Sequence[np.ndarray]) -> FaceReadings:
        expression = np.array([1 if points[:, 0].mean() < WIDTH / 2 else 2 for points in keypoints])
        return FaceReadings(expression, np.full(len(expression), 3), np.zeros((len(expression), 1)))


def groups(counts: list[int], expressions: list[tuple[int, ...]]) -> Groups:
    rows, most = len(counts), max(counts)

    def array(*shape: int) -> np.ndarray:
        return np.zeros((rows, most, *shape), np.float32)

    values: dict[str, Any] = {"landmarks": array(68, 2), "angles": array(3), "pose": array() + 3}
    photos = np.zeros((rows, 48, WIDTH, 3), np.uint8)
    photos[:, 0, 0, 0] = np.arange(rows)
    identity = np.where(np.arange(most)[None] < np.array(counts)[:, None], 5, -1)
    expression = np.zeros((rows, most), np.int8)
    boxes, keypoints = array(4), array(5, 2)
    for row, asked in enumerate(expressions):
        expression[row, : len(asked)] = asked
        middles = (np.arange(counts[row]) + 0.5) * WIDTH / counts[row]
        keypoints[row, : counts[row], :, 0] = middles[:, None]
        boxes[row, : counts[row]] = np.stack([middles - 6, middles * 0, middles + 6, middles * 0 + 14], 1)
    return Groups(
        photos=photos,
        boxes=boxes,
        keypoints=keypoints,
        identity=identity,
        expression=expression,
        prompts=("",) * rows,
        face_prompts=(("",),) * rows,
        **values,
    )


def test_each_person_is_judged_by_its_own_expression() -> None:
    # Two people as asked, the same two exchanged, one of two faces missing, a face too many.
    one = groups([2, 2, 2, 2], [(1, 2), (2, 1), (1, 2), (1, 2)])
    reader = Reader({0: five(70, 20), 1: five(20, 70), 2: five(75), 3: five(20, 70, 45)})
    figures = score([Asked(one, np.arange(4))], [one.photos], reader)  # type: ignore[arg-type]
    assert figures["count_2"] == 0.5
    assert figures["expression_2"] == pytest.approx((2 + 0 + 1 + 2) / 8)
    assert figures["pose_2"] == pytest.approx(7 / 8)


def test_numbers_of_people_have_their_own_figures() -> None:
    mixed = groups([1, 3], [(1,), (1, 1, 2)])
    reader = Reader({0: five(10), 1: five()})
    figures = score([Asked(mixed, np.arange(2))], [mixed.photos], reader)  # type: ignore[arg-type]
    assert (figures["count_1"], figures["expression_1"], figures["pose_1"]) == (1, 1, 1)
    assert (figures["count_3"], figures["expression_3"], figures["pose_3"]) == (0, 0, 0)


def test_faces_get_the_nearest_place_where_one_is_missing() -> None:
    people, which = assign(five(80, 10), 3, WIDTH)
    assert dict(zip(people.tolist(), which.tolist(), strict=True)) == {0: 1, 2: 0}
    people, which = assign(five(40, 10), 2, WIDTH)
    assert dict(zip(people.tolist(), which.tolist(), strict=True)) == {0: 1, 1: 0}


def test_every_number_of_people_is_asked_for_equally_often() -> None:
    sets = [groups([1, 2] * 9, [(0,)] * 18), groups([2, 3] * 9, [(0,)] * 18)]
    asked = asked_of(sets, 18)
    counts = np.concatenate([one.groups.count[one.rows] for one in asked])
    assert np.bincount(counts).tolist() == [0, 6, 6, 6]


def test_small_heads_are_read_alone() -> None:
    class Same:
        """An autoencoder that changes nothing."""

        class _Latents:
            def __init__(self, pixels: Any) -> None:
                self.latent_dist, self.sample, self._pixels = self, pixels, pixels

            def mode(self) -> Any:
                return self._pixels

        def encode(self, pixels: Any) -> Any:
            return self._Latents(pixels)

        decode = encode

    one = groups([2, 2], [(1, 2), (1, 1)])
    one.boxes[1, 0, 3] = 30
    figures = measure_small(Same(), [one], Reader({}))  # type: ignore[arg-type]
    # Of four heads, one is large.
    assert figures["small_heads"] == 3
    assert figures["small_expression"] == figures["small_expression_original"] == pytest.approx(2 / 3)
