"""Predict the landmarks of a person with another expression and pose, from mean shapes of the training people.

The IMR needs 68 points even if the motion is given as text only. A person's shape is the reference photo's landmarks
minus the template of the photo's expression and pose. All shapes are in the unit crop frame (see face_geometry).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSE_YAW, POSES

# The index of each point's mirror image (iBUG order).
_MIRROR = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *range(27, 31),
        *range(35, 30, -1),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *range(54, 47, -1),
        *range(59, 54, -1),
        *range(64, 59, -1),
        *range(67, 64, -1),
    ]
)
# The weight of the shape measured on one photo. On procedural people (150 for the bank, 50 others), the least-squares
# optimum was 0.84, and 0.8 to 0.9 gave the smallest distance to the person's true landmarks.
_SHAPE_WEIGHT = 0.85
_MIRRORED_POSE = dict(zip(POSES, reversed(POSES), strict=True))


def mirror(shape: np.ndarray) -> np.ndarray:
    """Return the mirror image of landmarks (..., 68, 2) in the unit crop frame."""
    flipped = shape[..., _MIRROR, :].copy()
    flipped[..., 0] = 1 - flipped[..., 0]
    return flipped


def build_bank(landmarks: np.ndarray, expressions: Sequence[str | None], poses: Sequence[str | None]) -> np.ndarray:
    """Return the templates, (7, 5, 68, 2) float32, in the order of EXPRESSIONS and POSES.

    `landmarks` (N, 68, 2) are those of training people, with their expression and pose words; photos where one is not
    known (None) are left out. A template is the mean of its photos, or without photos, the first of these that exists:
    the mirror image of the opposite pose's; the neutral template of the pose plus the change by the expression in the
    nearest pose that has both; the first expression of the pose, in the order of EXPRESSIONS; the same in the nearest
    pose. Raise ValueError without usable landmarks.
    """
    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.ndim != 3 or landmarks.shape[1:] != (68, 2) or not len(landmarks):
        raise ValueError(f"landmarks of shape {landmarks.shape}: expected (photos, 68, 2) with at least one photo")
    cells: dict[tuple[str, str], np.ndarray] = {}
    labels = list(zip(expressions, poses, strict=True))
    for expression in EXPRESSIONS:
        for pose in POSES:
            rows = [row for row, label in enumerate(labels) if label == (expression, pose)]
            if rows:
                cells[expression, pose] = landmarks[rows].mean(axis=0)
    if not cells:
        raise ValueError(f"no landmarks with a known expression and pose: expected words of {EXPRESSIONS} and {POSES}")
    for (expression, pose), shape in list(cells.items()):
        cells.setdefault((expression, _MIRRORED_POSE[pose]), mirror(shape))
    filled = [[_fill(cells, expression, pose) for pose in POSES] for expression in EXPRESSIONS]
    return np.array(filled, np.float32)


def _fill(cells: dict[tuple[str, str], np.ndarray], expression: str, pose: str) -> np.ndarray:
    if (expression, pose) in cells:
        return cells[expression, pose]
    nearest = sorted(POSES, key=lambda other: abs(POSE_YAW[other] - POSE_YAW[pose]))
    if ("neutral", pose) in cells:
        for other in nearest:
            if (expression, other) in cells and ("neutral", other) in cells:
                return cells["neutral", pose] + cells[expression, other] - cells["neutral", other]
    for other in nearest:
        for word in EXPRESSIONS:
            if (word, other) in cells:
                return cells[word, other]
    raise AssertionError("a bank with photos has at least one cell")


def retarget(  # noqa: PLR0917
    bank: np.ndarray,
    source_landmarks: np.ndarray,
    source_expression: str | None,
    source_pose: str | None,
    expression: str | None,
    pose: str | None,
) -> np.ndarray:
    """Return the landmarks (68, 2) float32 of the source's person in another expression and pose.

    Where those of the source are not known (None), its nearest template counts; those of the target are then the same.

    The person's shape (`person_shape`) is added to the template of the target (`with_shape`).
    """
    shape, source_expression, source_pose = person_shape(bank, source_landmarks, source_expression, source_pose)
    expression, pose = expression or source_expression, pose or source_pose
    return with_shape(template(bank, expression, pose), shape, POSE_YAW[source_pose], POSE_YAW[pose])


def person_shape(
    bank: np.ndarray, landmarks: np.ndarray, expression: str | None, pose: str | None
) -> tuple[np.ndarray, str, str]:
    """Return the shape (68, 2) of the person with these landmarks, and their expression and pose.

    Where these are not known (None), those of the nearest template. The shape is what the landmarks add to the
    template, without the part explained by a small change of yaw or of the strength of the expression.
    """
    expression, pose = _nearest_motion(bank, landmarks, expression, pose)
    offset = np.asarray(landmarks, np.float64) - template(bank, expression, pose)
    directions = _motions(bank, expression, pose)
    shares = np.linalg.lstsq(directions, offset.reshape(-1), rcond=None)[0]
    return offset - (directions @ shares).reshape(68, 2), expression, pose


def with_shape(target: np.ndarray, shape: np.ndarray, source_yaw: float, yaw: float) -> np.ndarray:
    """Return mean landmarks `target` (68, 2) at `yaw` with a person's `shape` from `source_yaw` (degrees), float32.

    The shape is mirrored if the two face opposite sides, and weighted by `_SHAPE_WEIGHT` and by the cosine of the
    change in |yaw|, since a shape is less certain the further the head turns.
    """
    if source_yaw * yaw < 0:
        shape = shape[_MIRROR] * np.array([-1, 1])
    weight = _SHAPE_WEIGHT * math.cos(math.radians(abs(yaw) - abs(source_yaw)))
    return (target + weight * shape).astype(np.float32)


def _nearest_motion(
    bank: np.ndarray, landmarks: np.ndarray, expression: str | None, pose: str | None
) -> tuple[str, str]:
    """Return the motion of the template nearest to landmarks (68, 2), among those with the words that are known."""
    candidates = [
        (word, side) for word in ([expression] if expression else EXPRESSIONS) for side in ([pose] if pose else POSES)
    ]
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda motion: float(((template(bank, *motion) - landmarks) ** 2).sum()))


def _motions(bank: np.ndarray, expression: str, pose: str) -> np.ndarray:
    """Return how a template changes with yaw and with the strength of its expression, as columns (136, 1 or 2)."""
    number = POSES.index(pose)
    before, after = POSES[max(number - 1, 0)], POSES[min(number + 1, len(POSES) - 1)]
    columns = [template(bank, expression, after) - template(bank, expression, before)]
    if expression != "neutral":
        columns.append(template(bank, expression, pose) - template(bank, "neutral", pose))
    return np.stack([column.reshape(-1) for column in columns], axis=1).astype(np.float64)


def template(bank: np.ndarray, expression: str, pose: str) -> np.ndarray:
    """Return the mean shape (68, 2) of an expression and pose; raise ValueError for unknown words."""
    if expression not in EXPRESSIONS or pose not in POSES:
        raise ValueError(f"{expression!r}, {pose!r}: expected one of {EXPRESSIONS} and one of {POSES}")
    return np.asarray(bank)[EXPRESSIONS.index(expression), POSES.index(pose)]
