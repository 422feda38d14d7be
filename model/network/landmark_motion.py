"""Mean landmarks at any strength of an expression, yaw and pitch, from the templates of 35 expressions and poses.

Each expression has a 3-D shape, fitted to its five templates by a camera without perspective (the factorisation of
Tomasi & Kanade 1992, with known angles). Projected at the angles of a template it differs from that, mostly at the jaw,
where the visible contour is no fixed point of the head. What it lacks is interpolated by yaw and added, so that at the
yaw of a template and pitch 0 the landmarks are the template's. Angles are in degrees, as in face_prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model.face.face_geometry import CROP_TEMPLATE, similarity
from model.face.face_prompts import EXPRESSIONS, POSE_YAW, POSES, compose
from model.face.target_motion import PITCH, STRENGTH, YAW

_YAWS = np.array([POSE_YAW[pose] for pose in POSES])
_FITS = 20
# Steps of the fit of a motion to landmarks, the change of an angle for its derivative, the most that one changes in a
# step, and the strength below which a face is neutral. The jaw tells more of a person's shape than of an expression.
_STEPS, _TURN, _MOST_TURN, _LEAST = 8, 1.0, 10.0, 0.5
_JAW, _JAW_WEIGHT = slice(0, 17), 0.3


@dataclass(frozen=True)
class Motion:
    """An expression and pose as numbers: `weights` (7,) of EXPRESSIONS, which sum to 1, and angles in degrees."""

    weights: tuple[float, ...]
    yaw: float
    pitch: float = 0.0

    @classmethod
    def of(cls, expression: str, yaw: float, pitch: float = 0.0) -> Motion:
        """Return the motion of an expression in full strength."""
        return cls(tuple(float(word == expression) for word in EXPRESSIONS), yaw, pitch)

    def scaled(self, strength: float) -> Motion:
        """Return the motion at `strength` of its expression: 0 is neutral, 1 as it is, above 1 exaggerated."""
        neutral = np.eye(len(EXPRESSIONS))[EXPRESSIONS.index("neutral")]
        weights = neutral + strength * (np.array(self.weights) - neutral)
        return replace(self, weights=tuple(map(float, weights)))

    def texts(self) -> list[tuple[float, str]]:
        """Return the canonical face prompts whose pooled texts, added with these weights, describe the motion.

        Texts name no pitch; beyond the outermost poses, they name these.
        """
        return [
            (weight * share, compose(expression, pose))
            for weight, expression in zip(self.weights, EXPRESSIONS, strict=True)
            for share, pose in zip(_pose_shares(self.yaw), POSES, strict=True)
            if weight * share
        ]


class LandmarkModel:
    """Mean landmarks of any motion, from templates (7, 5, 68, 2) in the unit crop frame."""

    def __init__(self, bank: np.ndarray) -> None:
        self._bank = np.asarray(bank, np.float64)
        self._shapes = np.stack([_shape_of(views) for views in self._bank])
        projected = [[_project(shape, yaw, 0.0) for yaw in _YAWS] for shape in self._shapes]
        self._rest = self._bank - np.array(projected)

    def landmarks(self, motion: Motion) -> np.ndarray:
        """Return mean landmarks (68, 2) float64."""
        shares = _pose_shares(motion.yaw)
        at_template = not motion.pitch and 1.0 in shares and abs(motion.yaw) <= _YAWS[-1]
        landmarks = np.zeros(self._bank.shape[2:])
        for number, weight in enumerate(motion.weights):
            if weight and at_template:
                landmarks += weight * self._bank[number, int(shares.argmax())]
            elif weight:
                projected = _project(self._shapes[number], motion.yaw, motion.pitch)
                landmarks += weight * (projected + np.tensordot(shares, self._rest[number], 1))
        return landmarks

    def fit(self, landmarks: np.ndarray, yaw: float) -> Motion:
        """Return the motion whose mean landmarks are nearest to those of a face (68, 2), searched from `yaw` on.

        It has one expression: with several at once, the shape of a face is read as a mixture. Below `_LEAST` of its
        strength a face is neutral.
        """
        found = [self._fit(landmarks, word, yaw) for word in EXPRESSIONS if word != "neutral"]
        _, strength, motion = min(found, key=lambda one: one[0])
        return motion if strength >= _LEAST else motion.scaled(0.0)

    def _fit(self, landmarks: np.ndarray, expression: str, yaw: float) -> tuple[float, float, Motion]:
        """Return the squared distance of the nearest motion with an expression, its strength, and the motion."""
        weight = np.ones((len(landmarks), 1))
        weight[_JAW] = _JAW_WEIGHT
        full, strength, pitch = Motion.of(expression, yaw), 0.0, 0.0

        def missing(change: np.ndarray) -> np.ndarray:
            motion = replace(full, yaw=yaw + change[1], pitch=pitch + change[2]).scaled(strength + change[0])
            return ((landmarks - self.landmarks(motion)) * weight).ravel()

        steps = np.diag([1.0, _TURN, _TURN])
        for _ in range(_STEPS):
            rest = missing(np.zeros(3))
            slopes = np.stack([missing(step) - rest for step in steps], 1)
            change = -steps @ np.linalg.lstsq(slopes, rest, rcond=None)[0]
            strength = float(np.clip(strength + change[0], *STRENGTH))
            yaw = float(np.clip(yaw + np.clip(change[1], -_MOST_TURN, _MOST_TURN), *YAW))
            pitch = float(np.clip(pitch + np.clip(change[2], -_MOST_TURN, _MOST_TURN), *PITCH))
        motion = replace(full, yaw=yaw, pitch=pitch).scaled(strength)
        return float((missing(np.zeros(3)) ** 2).sum()), strength, motion


def _pose_shares(yaw: float) -> np.ndarray:
    """Return the shares (5,) of the poses whose yaws are around `yaw`, or of the outermost one beyond it."""
    return np.array([np.interp(yaw, _YAWS, row) for row in np.eye(len(_YAWS))])


def _rows(yaw: float, pitch: float) -> np.ndarray:
    """Return the first two rows of the rotation: by yaw first, then by pitch; axes x right, y down, z to the camera."""
    a, b = np.radians([yaw, pitch])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    return np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)]]) @ turn


def _shape_of(views: np.ndarray) -> np.ndarray:
    """Return the 3-D shape (68, 3) of views (5, 68, 2), each of which has a scale of its own."""
    centred = views - views.mean(1, keepdims=True)
    turns, scales = [_rows(yaw, 0.0) for yaw in _YAWS], np.ones(len(_YAWS))
    shape = np.zeros((3, views.shape[1]))
    for _ in range(_FITS):
        seen = np.concatenate([scale * turn for scale, turn in zip(scales, turns, strict=True)])
        shape = np.linalg.lstsq(seen, np.concatenate([view.T for view in centred]), rcond=None)[0]
        flat = [turn @ shape for turn in turns]
        scales = np.array([(view.T * one).sum() / (one**2).sum() for view, one in zip(centred, flat, strict=True)])
        scales /= scales[POSES.index("front")]
    return shape.T


def _project(shape: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """Return the landmarks (68, 2) of a 3-D shape, aligned as every face is."""
    flat = shape @ _rows(yaw, pitch).T
    keypoints = np.stack([flat[36:42].mean(0), flat[42:48].mean(0), flat[30], flat[48], flat[54]])
    matrix = similarity(keypoints, CROP_TEMPLATE)
    return flat @ matrix[:, :2].T + matrix[:, 2]
