"""Strength, angles and a driving face change the identity tokens; without them, nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.face.conventions import PUBLISHED
from model.face.face import Face, ReferenceSet
from model.face.target_motion import TargetMotion
from model.inference.motion_control import rolled
from model.inference.pipeline import DynamicIDPipeline
from model.network.adapter import Adapter
from model.network.base import Base
from tests.model.inference.pictures import draw


@pytest.fixture
def bank(pipe: DynamicIDPipeline) -> np.ndarray:
    """Templates of faces, which the pipeline gets, too: those of a random adapter are no faces."""
    file = Path(__file__).resolve().parents[3] / "model" / "foundation" / "weights" / "adapter" / "adapter.safetensors"
    pipe.adapter.templates = load_file(file)["templates"]
    return pipe.adapter.templates.numpy()


def test_no_motion_is_the_same_to_the_bit(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    texts = ["sad", None]
    plain = pipe.tokens_of(faces, texts)
    assert torch.equal(pipe.tokens_of(faces, texts, [None, None]), plain)
    assert torch.equal(pipe.tokens_of(faces, texts, [TargetMotion(), None]), plain)
    assert torch.equal(pipe.tokens_of(faces, texts, [TargetMotion(roll=0.0), None])[:, :4], plain[:, :4])


def test_full_strength_and_the_yaw_of_a_word_are_the_face_prompt(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    asked = pipe.tokens_of(faces[:1], ["happy"], [TargetMotion(strength=1.0)])
    assert torch.allclose(asked, pipe.tokens_of(faces[:1], ["happy"]), atol=1e-6)
    asked = pipe.tokens_of(faces[:1], ["happy"], [TargetMotion(yaw=-30.0, pitch=0.0)])
    assert torch.allclose(asked, pipe.tokens_of(faces[:1], ["happy, slightly turned to the left"]), atol=1e-6)
    asked = pipe.tokens_of(faces[:1], ["happy"], [TargetMotion(strength=0.0)])
    assert torch.allclose(asked, pipe.tokens_of(faces[:1], ["neutral"]), atol=1e-6)


@pytest.mark.parametrize(
    "motion", [{"strength": 0.5}, {"strength": 1.5}, {"yaw": 12.0}, {"yaw": -80.0}, {"pitch": 40.0}]
)
def test_every_value_changes_the_tokens_of_its_person_alone(
    pipe: DynamicIDPipeline, faces: list[Face], motion: dict[str, float]
) -> None:
    plain = pipe.tokens_of(faces, ["happy", "sad"])
    asked = pipe.tokens_of(faces, ["happy", "sad"], [None, TargetMotion(**motion)])
    assert torch.allclose(asked[:, :4], plain[:, :4], atol=1e-6)
    assert not torch.allclose(asked[:, 4:], plain[:, 4:], atol=1e-6)


def test_of_a_driving_face_only_the_motion_is_used(
    pipe: DynamicIDPipeline, faces: list[Face], bank: np.ndarray
) -> None:
    def driven(driver: Face, **more: Any) -> torch.Tensor:
        return pipe.tokens_of(faces[:1], None, [TargetMotion(driving=driver, **more)])

    driver = replace(faces[1], landmarks=bank[1, 3], yaw=30.0)
    happy = driven(driver)
    words = pipe.tokens_of(faces[:1], ["happy, slightly turned to the right"])
    assert torch.allclose(happy, words, atol=0.1)
    # Neither embedding nor crop of the driver have a part in it, nor the words about its photo.
    other = replace(driver, embedding=faces[0].embedding, crop=faces[0].crop, expression="sad", pose="left")
    assert torch.equal(driven(other), happy)
    assert not torch.allclose(driven(driver, strength=0.0), happy, atol=1e-3)
    assert not torch.allclose(driven(driver, yaw=-30.0), happy, atol=1e-3)


def test_references_of_one_person_get_one_motion_and_pictures_their_own(
    pipe: DynamicIDPipeline, faces: list[Face]
) -> None:
    both, motion = ReferenceSet(tuple(faces), "concatenate"), TargetMotion(yaw=20.0)
    found = pipe.tokens_of([both], ["happy"], [motion])
    assert torch.allclose(found[:, :4], pipe.tokens_of(faces[:1], ["happy"], [motion]), atol=1e-6)
    pictures = [[faces[0]], [faces[1]]]
    rows = pipe.tokens_of(pictures, [["sad"], ["sad"]], [[motion], [None]])
    assert torch.allclose(rows[1], pipe.tokens_of(faces[1:], ["sad"])[0], atol=1e-6)
    assert draw(pipe, faces=faces, motions=[motion, None]).images.shape[0] == 1


def test_what_does_not_fit_together_is_named(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    driving = TargetMotion(driving=faces[1])
    with pytest.raises(ValueError, match="which names a pose: give one of them"):
        pipe.tokens_of(faces[:1], ["sad, turned to the left"], [TargetMotion(yaw=10.0)])
    with pytest.raises(ValueError, match="a driving photo and the face prompt 'sad'"):
        pipe.tokens_of(faces[:1], ["sad"], [driving])
    with pytest.raises(ValueError, match="motions of 1 pictures with 1 people, faces of 1 with 2"):
        pipe.tokens_of(faces, None, [driving])
    with pytest.raises(ValueError, match="a motion given as float"):
        pipe.tokens_of(faces[:1], None, [0.5])
    with pytest.raises(ValueError, match="landmarks of shape"):
        pipe.tokens_of(faces[:1], None, [TargetMotion(driving=replace(faces[1], landmarks=np.zeros((5, 2))))])
    with pytest.raises(ValueError, match="need faces or identity_tokens"):
        pipe("a photo", motions=[driving])


def test_a_roll_turns_landmarks_in_the_frame_of_the_photo_alone(
    pipe: DynamicIDPipeline, faces: list[Face], base: Base, make_adapter: Callable[..., Adapter]
) -> None:
    with pytest.raises(ValueError, match="roll 15: to this adapter every face is upright"):
        pipe.tokens_of(faces[:1], ["happy"], [TargetMotion(roll=15.0)])
    corner = np.array([[0.5, 0.2], [0.5, 0.8]])
    assert np.allclose(rolled(corner, 90.0), [[0.8, 0.5], [0.2, 0.5]])
    adapter = make_adapter(base)
    adapter.conventions = PUBLISHED
    published = DynamicIDPipeline.from_base(base, adapter)
    face = replace(faces[0], landmarks=np.random.default_rng(0).uniform(0.2, 0.8, (106, 2)).astype(np.float32))
    plain = published.tokens_of([face], ["happy"])
    assert not torch.equal(published.tokens_of([face], ["happy"], [TargetMotion(roll=30.0)]), plain)
    with pytest.raises(ValueError, match="need landmarks of other expressions and poses"):
        published.tokens_of([face], ["happy"], [TargetMotion(strength=0.5)])
