"""Words of a prompt and regions of a picture that show the same facial part."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from model.face.face_parts import NOT_NAMED, PARTS, described, part_masks, part_pictures, part_places
from model.foundation.random_models import random_tokenizer

FACE, EYES, NOSE, MOUTH = range(4)


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return random_tokenizer()


def ends(tokenizer: object, text: str) -> list[str]:
    """The text before the end of each named word, which is read back from the tokens."""
    ids = tokenizer(text).input_ids
    return [
        "" if place == NOT_NAMED else tokenizer.decode(ids[1 : place + 1]).strip()
        for place in part_places(tokenizer, text)
    ]


def test_each_word_is_found_by_its_name(tokenizer: object) -> None:
    text = "the mouth, eyes of blue, a nose; a face"
    found = ends(tokenizer, text)
    assert [words.rsplit(maxsplit=1)[-1] for words in found] == list(PARTS)
    assert len(found[MOUTH]) < len(found[EYES]) < len(found[NOSE]) < len(found[FACE])


def test_the_first_whole_word_counts_in_any_case(tokenizer: object) -> None:
    assert ends(tokenizer, "surfaces, Eyes and eyes")[EYES].endswith("eyes")
    assert part_places(tokenizer, "surfaces, noses, eyed") == [NOT_NAMED] * 4
    first, second = (part_places(tokenizer, text)[EYES] for text in ("Eyes and eyes", "Eyes"))
    assert first == second


def test_a_word_beyond_the_limit_is_not_named(tokenizer: object) -> None:
    assert part_places(tokenizer, f"face {'x ' * 80} nose") == [1 + 3, NOT_NAMED, NOT_NAMED, NOT_NAMED]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a photo", "a photo Detail: face, eyes, nose, mouth"),
        ("", "Detail: face, eyes, nose, mouth"),
        ("a face, blue eyes", "a face, blue eyes Detail: nose, mouth"),
        ("her face: eyes, nose, mouth", "her face: eyes, nose, mouth"),
        ("q" * 60, f"Detail: face, eyes, nose, mouth Caption: {'q' * 60}"),
    ],
)
def test_what_a_prompt_does_not_name_is_described(tokenizer: object, prompt: str, text: str) -> None:
    assert described(tokenizer, prompt) == text
    assert NOT_NAMED not in part_places(tokenizer, text)
    assert described(tokenizer, text) == text


def landmarks() -> np.ndarray:
    """A schematic face: jaw, brows, nose, eyes and mouth where they are."""
    angles = np.linspace(np.pi, 0, 17)
    jaw = np.stack([0.5 + 0.3 * np.cos(angles), 0.45 + 0.35 * np.sin(angles)], 1)
    brows = np.stack([np.linspace(0.28, 0.72, 10), np.full(10, 0.36)], 1)
    nose = np.concatenate(
        [[[0.5, y] for y in np.linspace(0.45, 0.55, 4)], [[x, 0.6] for x in np.linspace(0.45, 0.55, 5)]]
    )
    ring = np.linspace(0, 2 * np.pi, 7)[:6]
    eyes = [np.stack([x + 0.06 * np.cos(ring), 0.44 + 0.03 * np.sin(ring)], 1) for x in (0.38, 0.62)]
    around = np.linspace(0, 2 * np.pi, 21)[:20]
    mouth = np.stack([0.5 + 0.1 * np.cos(around), 0.7 + 0.04 * np.sin(around)], 1)
    return np.concatenate([jaw, brows, nose, *eyes, mouth]).astype(np.float32)


def test_the_parts_are_inside_the_face_and_apart() -> None:
    masks = part_masks(landmarks(), 128)
    assert masks.shape == (4, 128, 128)
    assert set(np.unique(masks)) == {0.0, 1.0}
    areas = masks.sum(axis=(1, 2))
    assert areas[FACE] > 5 * areas[1:].max() > 5 * 50
    for part in (EYES, NOSE, MOUTH):
        assert (masks[FACE] >= masks[part]).all()
    centres = [np.argwhere(masks[part]).mean(axis=0)[0] for part in (EYES, NOSE, MOUTH)]
    assert all(upper < lower for upper, lower in pairwise(centres))
    assert masks[EYES][:, :64].sum() == pytest.approx(masks[EYES][:, 64:].sum(), rel=0.1)


def test_a_picture_of_a_part_is_black_elsewhere() -> None:
    picture = np.full((32, 32, 3), 200, np.uint8)
    shown = part_pictures(picture, landmarks())
    assert np.array_equal(shown[..., 0] > 0, part_masks(landmarks(), 32) > 0)
    assert set(np.unique(shown)) == {0, 200}


def test_other_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"landmarks of shape \(106, 2\): facial parts are found by the 68"):
        part_masks(np.zeros((106, 2), np.float32), 8)
