"""Landmark templates: means, empty cells, and the shape of a person."""

from __future__ import annotations

import numpy as np
import pytest

from model.face.face_prompts import POSES
from model.network.templates import build_bank, mirror, retarget, template


def shape(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2, 0.8, (68, 2))


def test_mirror_is_its_own_inverse() -> None:
    assert np.allclose(mirror(mirror(shape(0))), shape(0))
    assert sorted(set(np.argsort(mirror(np.arange(136).reshape(68, 2) / 200)[:, 1]))) == list(range(68))


def test_a_symmetric_face_is_its_mirror_image() -> None:
    half = shape(0)
    face = (half + mirror(half)) / 2
    assert np.allclose(mirror(face), face)


def test_cells_are_means() -> None:
    shapes = np.stack([shape(seed) for seed in range(4)])
    bank = build_bank(shapes, ["happy", "happy", "neutral", "sad"], ["front", "front", "front", "left"])
    assert bank.shape == (7, 5, 68, 2)
    assert bank.dtype == np.float32
    assert np.allclose(template(bank, "happy", "front"), shapes[:2].mean(axis=0), atol=1e-6)
    assert np.allclose(template(bank, "sad", "left"), shapes[3], atol=1e-6)


def test_empty_cells_are_filled_in_the_stated_order() -> None:
    neutral, happy, left = shape(0), shape(1), shape(2)
    bank = build_bank(np.stack([neutral, happy, left]), ["neutral", "happy", "neutral"], ["front", "front", "left"])
    assert np.isfinite(bank).all()
    assert np.allclose(template(bank, "neutral", "right"), mirror(left), atol=1e-6)
    assert np.allclose(template(bank, "happy", "left"), left + happy - neutral, atol=1e-6)
    assert np.allclose(template(bank, "sad", "front"), neutral, atol=1e-6)
    assert np.allclose(template(bank, "happy", "half_left"), template(bank, "neutral", "half_left"), atol=1e-6)


def test_no_landmarks_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one photo"):
        build_bank(np.zeros((0, 68, 2)), [], [])
    with pytest.raises(ValueError, match="known expression"):
        build_bank(np.zeros((1, 68, 2)), ["grumpy"], ["front"])


def full_bank() -> np.ndarray:
    """Return a bank of neutral and happy faces in every pose; other expressions are filled in."""
    labels = [(expression, pose) for expression in ("neutral", "happy") for pose in ("front", "half_right", "right")]
    return build_bank(np.stack([shape(row) for row in range(6)]), *zip(*labels, strict=True))


def unexplained(bank: np.ndarray, expression: str, pose: str) -> np.ndarray:
    """Return a difference in shape that neither a turn of the head nor a stronger expression explains."""
    offset = np.random.default_rng(3).normal(0, 0.02, (68, 2))
    number = POSES.index(pose)
    motions = [
        template(bank, expression, POSES[min(number + 1, 4)]) - template(bank, expression, POSES[max(number - 1, 0)])
    ]
    if expression != "neutral":
        motions.append(template(bank, expression, pose) - template(bank, "neutral", pose))
    columns = np.stack([motion.reshape(-1) for motion in motions], axis=1)
    return offset - (columns @ np.linalg.lstsq(columns, offset.reshape(-1))[0]).reshape(68, 2)


def share(moved: np.ndarray, offset: np.ndarray) -> float:
    """Return the factor of `offset` in `moved`, which must be a multiple of it."""
    found = float((moved * offset).sum() / (offset**2).sum())
    assert np.allclose(moved, found * offset, atol=1e-5)
    return found


@pytest.mark.parametrize(("expression", "pose"), [("happy", "front"), ("neutral", "front"), ("happy", "half_right")])
def test_a_person_keeps_their_shape(expression: str, pose: str) -> None:
    bank = full_bank()
    offset = unexplained(bank, "neutral", "front")
    own = template(bank, "neutral", "front") + offset
    moved = retarget(bank, own, "neutral", "front", expression, pose) - template(bank, expression, pose)
    assert 0.5 < share(moved, offset) <= 1


def test_turns_and_stronger_smiles_do_not_count_as_shape() -> None:
    bank = full_bank()
    turned = template(bank, "happy", "half_right") - template(bank, "happy", "half_left")
    smile = template(bank, "happy", "front") - template(bank, "neutral", "front")
    own = template(bank, "happy", "front") + 0.2 * turned - 0.3 * smile
    found = retarget(bank, own, "happy", "front", "neutral", "front")
    assert np.allclose(found, template(bank, "neutral", "front"), atol=1e-5)


def test_the_other_side_gives_the_mirrored_shape() -> None:
    bank = full_bank()
    offset = unexplained(bank, "neutral", "left")
    own = template(bank, "neutral", "left") + offset
    moved = retarget(bank, own, "neutral", "left", "neutral", "right") - template(bank, "neutral", "right")
    mirrored = mirror(own) - mirror(template(bank, "neutral", "left"))
    assert share(moved, mirrored) > 0.5


def test_a_profile_contributes_less_to_the_front() -> None:
    bank = full_bank()
    shares = []
    for pose in ("right", "half_right", "front"):
        offset = unexplained(bank, "neutral", "right")
        own = template(bank, "neutral", "right") + offset
        moved = retarget(bank, own, "neutral", "right", "happy", pose) - template(bank, "happy", pose)
        shares.append(share(moved, offset))
    assert shares[0] > shares[1] > shares[2] > 0.2


def test_unknown_words_are_named() -> None:
    bank = build_bank(shape(0)[None], ["neutral"], ["front"])
    with pytest.raises(ValueError, match="grumpy"):
        retarget(bank, shape(1), "neutral", "front", "grumpy", "front")


def test_a_source_whose_motion_is_open_counts_as_its_nearest_template() -> None:
    bank = full_bank()
    own = template(bank, "happy", "right") + 0.01 * unexplained(bank, "happy", "right")
    known = retarget(bank, own, "happy", "right", "neutral", "front")
    assert np.allclose(retarget(bank, own, None, None, "neutral", "front"), known)
    assert np.allclose(retarget(bank, own, "happy", None, "neutral", "front"), known)
    # What the target leaves open stays as it is in the source.
    assert np.allclose(
        retarget(bank, own, None, None, None, "front"), retarget(bank, own, "happy", "right", "happy", "front")
    )


def test_photos_of_open_motion_are_no_part_of_the_templates() -> None:
    shapes = np.stack([shape(seed) for seed in range(3)])
    bank = build_bank(shapes, ["happy", None, "happy"], ["front", "front", None])
    assert np.allclose(template(bank, "happy", "front"), shapes[0], atol=1e-6)
