"""Conditions of the IMR: photos whose expression or pose is open have texts and landmarks of what is known."""

from __future__ import annotations

import numpy as np
import torch

from model.face.face_prompts import EXPRESSIONS, POSES, compose
from model.network.base import Base
from model.network.templates import build_bank
from model.training.motion import Motion, face_prompt_states
from model.training.photos import UNKNOWN, Photos

HAPPY, LEFT = EXPRESSIONS.index("happy"), POSES.index("left")


def test_a_face_prompt_states_only_what_is_known(base: Base) -> None:
    states = face_prompt_states(base)
    assert states.shape[:2] == (len(EXPRESSIONS) + 1, len(POSES) + 1)
    cases = {(HAPPY, LEFT): compose("happy", "left"), (HAPPY, UNKNOWN): "happy"}
    cases |= {(UNKNOWN, LEFT): "turned to the left", (UNKNOWN, UNKNOWN): ""}
    for (expression, pose), text in cases.items():
        assert torch.allclose(states[expression, pose], base.encode_text([text])[1][0].float(), atol=1e-5), text


class _Landmarks:
    """The landmarks of three photos."""

    shapes = np.random.default_rng(0).uniform(0.2, 0.8, (3, 68, 2)).astype(np.float32)

    def landmarks(self, rows: np.ndarray) -> np.ndarray:
        return self.shapes[rows]


def test_a_target_of_open_motion_has_its_true_landmarks() -> None:
    labels = np.array([[HAPPY, LEFT], [HAPPY, UNKNOWN], [UNKNOWN, LEFT]], np.int8)
    ones = np.zeros(3, np.int32)
    photos = Photos(
        np.zeros((3, 32), np.uint8), ones, ["p"], ones, [""], labels[:, 0], labels[:, 1], lambda _: iter(())
    )
    bank = build_bank(_Landmarks.shapes[:1], ["happy"], ["left"])
    motion = Motion(photos, _Landmarks(), torch.zeros(8, 6, 4), bank)
    assert motion.labels(2) == (None, "left")
    rows = np.arange(3)
    for source in rows:
        pictures = motion.target_pictures(int(source), rows, np.ones(3, bool))
        assert torch.equal(pictures[1:], motion.landmark_pictures(rows[1:]))
    assert not torch.equal(pictures[0], motion.landmark_pictures(rows[:1])[0])
