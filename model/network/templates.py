"""Landmarks for a face that does not exist yet: mean shapes per expression and pose, moved towards a person.

When only a text says what a face shall do, the IMR still wants 68 points. They come from a bank of templates made of
the training people; a person's own shape is what their reference photo differs by from the template of its own
expression and pose. All shapes are in the unit crop frame (see face_geometry).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSE_YAW, POSES

# Which point becomes which when a face is seen in a mirror (iBUG order).
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
# One photo shows a passing moment as well as a shape: on procedural people (150 for the bank, 50 others) .84 was the
# best weight in least squares, and .8 to .9 gave the smallest distance to the person's own landmarks.
_TRUST = 0.85
_MIRRORED_POSE = {
    "left": "right",
    "half_left": "half_right",
    "front": "front",
    "half_right": "half_left",
    "right": "left",
}


def mirror(shape: np.ndarray) -> np.ndarray:
    """Return (..., 68, 2) landmarks of the unit crop frame as seen in a mirror."""
    flipped = shape[..., _MIRROR, :].copy()
    flipped[..., 0] = 1 - flipped[..., 0]
    return flipped


def build_bank(landmarks: np.ndarray, expressions: Sequence[str], poses: Sequence[str]) -> np.ndarray:
    """Return the templates, (7, 5, 68, 2) float32, in the order of EXPRESSIONS and POSES.

    `landmarks` (N, 68, 2) of training people with their expression and pose words. A cell is the mean of its photos.
    A cell without photos takes the first of these that exists: its mirror image; the neutral shape of the same pose,
    moved as the expression moves it in the nearest pose that has both; any expression of the same pose, in the order
    of EXPRESSIONS; the nearest pose of any expression. Raises ValueError where there are no landmarks at all.
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
    source_expression: str,
    source_pose: str,
    expression: str,
    pose: str,
) -> np.ndarray:
    """Return the landmarks (68, 2) float32 of the source's person in another expression and pose.

    The template of the target is moved by the person's own shape: what the source differs by from the template of its
    own cell, less what a slightly other yaw or a stronger or weaker expression would explain. A source that looks to
    the other side gives its shape mirrored; the further the head turns between the two, the less one picture says
    about the other, so the shape is weighted with the cosine of the change in |yaw|.
    """
    offset = np.asarray(source_landmarks, np.float64) - template(bank, source_expression, source_pose)
    directions = _motions(bank, source_expression, source_pose)
    shares = np.linalg.lstsq(directions, offset.reshape(-1), rcond=None)[0]
    shape = offset - (directions @ shares).reshape(68, 2)
    source_yaw, yaw = POSE_YAW[source_pose], POSE_YAW[pose]
    if source_yaw * yaw < 0:
        shape = shape[_MIRROR] * np.array([-1, 1])
    weight = _TRUST * math.cos(math.radians(abs(yaw) - abs(source_yaw)))
    return (template(bank, expression, pose) + weight * shape).astype(np.float32)


def _motions(bank: np.ndarray, expression: str, pose: str) -> np.ndarray:
    """Return as columns (136, 1 or 2) how a template moves with yaw, and with the strength of its expression."""
    number = POSES.index(pose)
    before, after = POSES[max(number - 1, 0)], POSES[min(number + 1, len(POSES) - 1)]
    columns = [template(bank, expression, after) - template(bank, expression, before)]
    if expression != "neutral":
        columns.append(template(bank, expression, pose) - template(bank, "neutral", pose))
    return np.stack([column.reshape(-1) for column in columns], axis=1).astype(np.float64)


def template(bank: np.ndarray, expression: str, pose: str) -> np.ndarray:
    """Return the mean shape (68, 2) of one expression and pose; ValueError for words that are none."""
    if expression not in EXPRESSIONS or pose not in POSES:
        raise ValueError(f"{expression!r}, {pose!r}: expected one of {EXPRESSIONS} and one of {POSES}")
    return np.asarray(bank)[EXPRESSIONS.index(expression), POSES.index(pose)]
