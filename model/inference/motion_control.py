"""From what is asked of a face's motion to the conditions of the IMR: landmarks, and weighted face prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model.face.face import Face
from model.face.face_prompts import POSE_YAW
from model.face.target_motion import TargetMotion
from model.inference.identity_request import requested_motion
from model.network.adapter import Adapter
from model.network.landmark_motion import LandmarkModel, Motion
from model.network.templates import person_shape, with_shape


@dataclass(frozen=True)
class MotionControl:
    """Find the conditions of a target by templates (7, 5, 68, 2), `bank`, and the model of the motions between them."""

    bank: np.ndarray
    model: LandmarkModel

    @classmethod
    def of(cls, bank: np.ndarray) -> MotionControl:
        """Return the control by the templates of an adapter."""
        return cls(bank, LandmarkModel(bank))

    def conditions(
        self, face: Face, text: str | None, asked: TargetMotion
    ) -> tuple[np.ndarray, list[tuple[float, str]]]:
        """Return landmarks (68, 2) of a face in the motion that is asked, and face prompts with their weights.

        What neither the face prompt `text` nor `asked` says is kept, as with a face prompt alone. Of a driving face,
        the motion is read from its landmarks (`LandmarkModel.fit`); the rest of them is its shape, and is not used.
        """
        shape, expression, pose = person_shape(self.bank, face.landmarks, face.expression, face.pose)
        if asked.driving is not None:
            motion = self.model.fit(asked.driving.landmarks, self._yaw_of(asked.driving))
        else:
            named = (None, None) if text is None else requested_motion(text, face)
            motion = Motion.of(named[0] or expression, POSE_YAW[named[1] or pose])
        if asked.strength is not None:
            motion = motion.scaled(asked.strength)
        motion = replace(
            motion,
            yaw=motion.yaw if asked.yaw is None else asked.yaw,
            pitch=motion.pitch if asked.pitch is None else asked.pitch,
        )
        return with_shape(self.model.landmarks(motion), shape, POSE_YAW[pose], motion.yaw), motion.texts()

    def _yaw_of(self, face: Face) -> float:
        """Return the yaw of a face as it was measured, else that of the nearest template."""
        return POSE_YAW[person_shape(self.bank, face.landmarks, None, face.pose)[2]] if face.yaw is None else face.yaw


def refusal(adapter: Adapter, motion: TargetMotion) -> str:
    """Return why an adapter cannot follow a motion, "" where it can."""
    ways = adapter.conventions
    if not adapter.takes_face_prompts:
        return "strength, angles and driving photos need an adapter with an IMR: this one has none (stage train_imr)"
    if motion.roll and ways.landmark_frame == "aligned":
        return (
            f"roll {motion.roll:g}: to this adapter every face is upright (its conventions: landmark_frame=aligned), "
            "so that neither landmarks nor tokens can carry a roll; turn the finished picture instead"
        )
    if motion.needs_templates and (adapter.templates is None or ways.target_landmarks == "source"):
        return (
            "strength, yaw, pitch and a driving photo need landmarks of other expressions and poses: an adapter of the "
            "stage train_imr, with target_landmarks=template (the conventions of this one keep the reference's own)"
        )
    return ""


def rolled(landmarks: np.ndarray, roll: float) -> np.ndarray:
    """Return landmarks (N, 2) float32 turned around their middle by `roll` degrees, clockwise in the picture."""
    cosine, sine = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    middle = landmarks.mean(0)
    return ((landmarks - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle).astype(np.float32)
