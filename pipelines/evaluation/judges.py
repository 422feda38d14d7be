"""The judges of faces: ONNX networks that have no part in conditioning the model.

A face is given as a picture and its five key points; each judge makes its own aligned crop.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.face.face_geometry import crop_matrix
from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.errors import UserError
from pipelines.data.faces.networks import open_network

_CHUNK = 64
_EXPRESSION_POSE_SIZE = 112


@dataclass(frozen=True)
class MotionReadings:
    """Expression and pose of N faces: indices (N,) int into EXPRESSIONS and POSES; `yaw` (N,) degrees."""

    expression: np.ndarray
    pose: np.ndarray
    yaw: np.ndarray


class RecogniserJudge:
    """Identity embeddings of ArcFace-aligned crops."""

    def __init__(self, file: Path, *, size: int, mean: float, scale: float) -> None:
        self._session = open_network(file, "evaluate.judges.recogniser")
        self._size, self._mean, self._scale = size, mean, scale

    def embed(self, images: Sequence[np.ndarray], keypoints: Sequence[np.ndarray]) -> np.ndarray:
        """Return unit-norm embeddings (N, d) float32 of N pictures (H, W, 3) uint8 RGB with their key points (5, 2)."""
        from insightface.utils.face_align import norm_crop

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # insightface calls scikit-image by a deprecated name
            crops = [
                norm_crop(image, np.asarray(points, np.float32), self._size)
                for image, points in zip(images, keypoints, strict=True)
            ]
        (features,) = _run(self._session, crops, self._mean, self._scale, [self._session.get_outputs()[0].name])
        return (features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)).astype(np.float32)


class ExpressionPoseJudge:
    """Seven expressions, five poses and yaw of aligned crops."""

    def __init__(self, file: Path) -> None:
        self._session = open_network(file, "evaluate.judges.expression_pose")
        outputs = {output.name for output in self._session.get_outputs()}
        missing = {"expression", "pose", "yaw"} - outputs
        if missing:
            raise UserError(f"{file}: outputs {sorted(outputs)}, expected expression, pose and yaw")

    def read(self, images: Sequence[np.ndarray], keypoints: Sequence[np.ndarray]) -> MotionReadings:
        """Read the faces of N pictures (H, W, 3) uint8 RGB with their key points (5, 2)."""
        size = _EXPRESSION_POSE_SIZE
        crops = [
            cv2.warpAffine(image, crop_matrix(points) * size, (size, size), flags=cv2.INTER_AREA)
            for image, points in zip(images, keypoints, strict=True)
        ]
        expression, pose, yaw = _run(self._session, crops, 127.5, 127.5, ["expression", "pose", "yaw"])
        return MotionReadings(
            expression.reshape(-1, len(EXPRESSIONS)).argmax(1), pose.reshape(-1, len(POSES)).argmax(1), yaw.reshape(-1)
        )


def _run(session: Any, crops: list[np.ndarray], mean: float, scale: float, names: list[str]) -> list[np.ndarray]:
    """Run RGB crops (S, S, 3) uint8 through a network in chunks; return its outputs called `names`."""
    entry = session.get_inputs()[0]
    if not crops:
        widths = {output.name: output.shape[-1] for output in session.get_outputs()}
        return [np.zeros((0, widths[name] if isinstance(widths[name], int) else 1), np.float32) for name in names]
    # Some networks are exported with a fixed batch size, such as 1.
    chunk = entry.shape[0] if isinstance(entry.shape[0], int) else _CHUNK
    done = []
    for start in range(0, len(crops), chunk):
        stacked = np.stack(crops[start : start + chunk]).astype(np.float32).transpose(0, 3, 1, 2)
        done.append(session.run(names, {entry.name: np.ascontiguousarray((stacked - mean) / scale, np.float32)}))
    return [np.concatenate([part[index] for part in done]) for index in range(len(names))]
