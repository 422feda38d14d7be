"""Agreement of the drawn face with its face prompt. A picture without a face counts as wrong."""

from __future__ import annotations

import numpy as np

from model.face.face_prompts import POSE_YAW, POSES

_YAWS = np.array([POSE_YAW[pose] for pose in POSES])


def correct(asked: np.ndarray, read: np.ndarray, found: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return 1 where the class read is the one asked for, else 0; NaN for cells that do not count for the metric.

    `asked` and `read` (N,) int class indices, `found` and `counts` (N,) bool.
    """
    return np.where(counts, (found & (asked == read)).astype(float), np.nan)


def yaw_error(asked_pose: np.ndarray, yaw: np.ndarray, found: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return |yaw − asked yaw| in degrees; NaN for cells that do not count for the metric.

    A picture without a face gets the error of the pose farthest from the asked one: omitting it would favour failures.
    `asked_pose` (N,) indices into POSES, `yaw` (N,) degrees.
    """
    asked = _YAWS[asked_pose]
    farthest = np.abs(_YAWS[None, :] - asked[:, None]).max(1)
    return np.where(counts, np.where(found, np.abs(np.where(found, yaw, 0.0) - asked), farthest), np.nan)


def confusion(asked: np.ndarray, read: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Return counts (classes, classes + 1): rows asked, columns read; the last column is "no face"."""
    counts = np.zeros((classes, classes + 1), int)
    np.add.at(counts, (asked, np.where(found, read, classes)), 1)
    return counts
