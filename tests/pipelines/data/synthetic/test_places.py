"""Heads are placed side by side, as large as asked, and no face is covered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.synthetic.draw import reach, render_placed
from pipelines.data.synthetic.person import Person
from pipelines.data.synthetic.places import SHORTEST, TALLEST, Reach, apart, place_people
from pipelines.data.synthetic.scene import Scene

SIZES = {(128, 128): 3, (160, 112): 4, (192, 96): 4, (112, 160): 2}


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.sampled_from(sorted(SIZES)), st.integers(1, 4), st.integers(0, 10_000))
def test_no_hair_reaches_a_neighbours_face(size: tuple[int, int], count: int, seed: int) -> None:
    width, height = size
    count = min(count, SIZES[size])
    rng = np.random.default_rng(seed)
    faces = rng.uniform(0.55, 0.8, (count, 2))
    hair = faces + rng.uniform(0, 0.25, (count, 2))
    reaches = [Reach(*map(float, (*face, *wide, 1.1))) for face, wide in zip(faces, hair, strict=True)]
    places = place_people(rng, reaches, width, height)
    for reach_, place in zip(reaches, places, strict=True):
        assert SHORTEST - 1e-9 <= 2 * place.unit / height <= TALLEST + 1e-9
        assert place.x - reach_.face_left * place.unit >= 0
        assert place.x + reach_.face_right * place.unit <= width
        assert 0 < place.y < height
    for one, two, a, b in zip(reaches, reaches[1:], places, places[1:], strict=False):
        # Faces have a distance even where little room is left for hair.
        assert b.x - a.x >= one.face_right * a.unit + two.face_left * b.unit - 1e-6


def test_faces_that_do_not_fit_are_refused() -> None:
    wide = [Reach(0.8, 0.8, 1.0, 1.0, 1.0)] * 4
    with pytest.raises(ValueError, match="4 people do not fit side by side into 112 × 160 pixels"):
        place_people(np.random.default_rng(0), wide, 112, 160)


@pytest.mark.parametrize("size", sorted(SIZES))
def test_people_are_drawn_at_their_places(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    people = [
        (Person.sample("places", 0, index), Scene.sample(rng, "happy", "half_left")) for index in range(SIZES[size])
    ]
    places = place_people(rng, [reach(*one) for one in people], *size)
    image, truths = render_placed(people, places, size)
    assert image.shape == (size[1], size[0], 3)
    assert apart(np.stack([truth.box for truth in truths]))
    middles = [float(truth.keypoints[:, 0].mean()) for truth in truths]
    assert middles == sorted(middles)
    for truth, place in zip(truths, places, strict=True):
        assert abs(truth.landmarks.mean(0) - [place.x, place.y]).max() < 0.6 * place.unit
        assert truth.prompt.count(";") == len(people) - 1
        # The mouth is drawn where its points are: darker or redder than the cheeks, never background.
        x, y = truth.keypoints[2].round().astype(int)
        assert (image[y, x] != image[1, 1]).any()
