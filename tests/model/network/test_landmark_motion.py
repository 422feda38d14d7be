"""Landmarks between and beyond the templates, and the motion that is read from landmarks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from model.face.face_geometry import crop_landmarks
from model.face.face_prompts import EXPRESSIONS, POSE_YAW, POSES
from model.network.landmark_motion import LandmarkModel, Motion
from model.network.templates import template
from pipelines.data.synthetic.draw import truth
from pipelines.data.synthetic.person import Person
from pipelines.data.synthetic.scene import Scene


@pytest.fixture(scope="module")
def bank() -> np.ndarray:
    file = Path(__file__).resolve().parents[3] / "model" / "foundation" / "weights" / "adapter" / "adapter.safetensors"
    return load_file(file)["templates"].numpy()


@pytest.fixture(scope="module")
def model(bank: np.ndarray) -> LandmarkModel:
    return LandmarkModel(bank)


def true_landmarks(number: int, expression: str = "neutral", intensity: float = 1.0, **angles: float) -> np.ndarray:
    """Return the landmarks (68, 2) of a drawn person in the unit crop frame."""
    level = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0}
    scene = Scene.sample(np.random.default_rng(number), expression, "front")
    drawn = truth(Person.sample("tests", 0, number), replace(scene, intensity=intensity, **{**level, **angles}), 256)
    return crop_landmarks(drawn.landmarks, drawn.keypoints)


def test_at_the_templates_landmarks_are_theirs(bank: np.ndarray, model: LandmarkModel) -> None:
    for expression in EXPRESSIONS:
        for pose in POSES:
            found = model.landmarks(Motion.of(expression, POSE_YAW[pose])).astype(np.float32)
            assert np.array_equal(found, template(bank, expression, pose))


@pytest.mark.parametrize("angles", [{"yaw": 45.0}, {"yaw": -75.0}, {"pitch": 20.0}, {"yaw": 30.0, "pitch": -20.0}])
def test_between_and_beyond_them_they_are_nearer_to_drawn_faces(
    bank: np.ndarray, model: LandmarkModel, angles: dict[str, float]
) -> None:
    """The mean over people: that of the model against the nearest template's."""
    mean = np.mean([true_landmarks(number, **angles) for number in range(12)], axis=0)
    motion = replace(Motion.of("neutral", 0.0), **angles)
    nearest = min(POSES, key=lambda pose: abs(POSE_YAW[pose] - motion.yaw))

    def distance(points: np.ndarray) -> float:
        return float(np.linalg.norm(points - mean, axis=1).mean())

    assert distance(model.landmarks(motion)) < 0.9 * distance(template(bank, "neutral", nearest))


def test_strength_moves_from_neutral_to_the_expression_and_on(bank: np.ndarray, model: LandmarkModel) -> None:
    neutral, happy = (template(bank, word, "half_left").astype(np.float64) for word in ("neutral", "happy"))
    for strength in (0.0, 0.4, 1.0, 1.5):
        found = model.landmarks(Motion.of("happy", -30.0).scaled(strength))
        assert np.allclose(found, neutral + strength * (happy - neutral))


def test_texts_are_the_canonical_ones_around_the_motion() -> None:
    assert Motion.of("sad", 60.0).texts() == [(1.0, "sad, turned to the right")]
    assert Motion.of("sad", 80.0).texts() == [(1.0, "sad, turned to the right")]
    found = {text: weight for weight, text in Motion.of("happy", 15.0).scaled(0.5).texts()}
    assert found == pytest.approx(
        {
            f"{word}, {side}": 0.25
            for word in ("neutral", "happy")
            for side in ("facing the camera", "slightly turned to the right")
        }
    )
    assert [weight for weight, _ in Motion.of("happy", 0.0).scaled(1.5).texts()] == [-0.5, 1.5]


def test_the_motion_of_a_driving_face_is_read_from_its_landmarks(model: LandmarkModel) -> None:
    right, off = 0, []
    cases = [(number, word, yaw) for number, word in enumerate(EXPRESSIONS) for yaw in (-35.0, 5.0)]
    for number, word, yaw in cases:
        motion = model.fit(true_landmarks(number, word, yaw=yaw, pitch=4.0), 0.0)
        strongest = EXPRESSIONS[int(np.argmax(motion.weights))] if max(motion.weights[1:]) else "neutral"
        right += strongest == word
        off.append(abs(motion.yaw - yaw))
    assert right / len(cases) >= 0.75
    assert np.mean(off) < 5
