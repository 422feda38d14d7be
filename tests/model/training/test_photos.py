"""Whose other photos a photo is exchanged for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from model.training.photos import UNKNOWN, Companions, Photos

PEOPLE = [1, UNKNOWN, 0, 1, 2, 1, UNKNOWN, 0]


@pytest.fixture
def photos(make_photos: Callable[..., Photos]) -> Photos:
    """Two photos of the first, three of the second, one of the third, two of nobody known."""
    some = make_photos(*range(len(PEOPLE)))
    return replace(some, person=np.array(PEOPLE, np.int32), people=["a", "b", "c"])


def test_a_photo_is_exchanged_for_every_other_one_of_its_person_alike(photos: Photos) -> None:
    companions, rng = Companions(photos), np.random.default_rng(0)
    rows = np.arange(len(PEOPLE))
    drawn = np.stack([companions.exchanged(rows, 1.0, rng) for _ in range(400)])
    assert [set(column.tolist()) for column in drawn.T] == [{3, 5}, {1}, {7}, {0, 5}, {4}, {0, 3}, {6}, {2}]
    assert np.mean(drawn[:, 0] == 3) == pytest.approx(0.5, abs=0.1)


def test_a_share_of_the_photos_is_exchanged(photos: Photos) -> None:
    companions, rng = Companions(photos), np.random.default_rng(0)
    rows = np.tile([0, 2, 3, 5, 7], 400)
    assert np.mean(companions.exchanged(rows, 0.3, rng) != rows) == pytest.approx(0.3, abs=0.04)
    np.testing.assert_array_equal(companions.exchanged(rows, 0.0, rng), rows)


def test_nobody_known_keeps_every_photo(photos: Photos) -> None:
    nobody = replace(photos, person=np.full(len(PEOPLE), UNKNOWN, np.int32), people=[])
    rows = np.arange(len(PEOPLE))
    np.testing.assert_array_equal(Companions(nobody).exchanged(rows, 1.0, np.random.default_rng(0)), rows)
