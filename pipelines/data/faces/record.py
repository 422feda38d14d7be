"""Define the result of analysing a photo or a picture."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipelines.data.faces.protocols import Pose


@dataclass(frozen=True)
class FaceRecord:
    """The analysis of one photo: the measured columns of pipelines.core.row_schemas.PROCESSED_SCHEMA.

    `image` is the stored JPEG, geometry is in its pixels. Where `status` is "rejected", all measurements except
    `det_score`, `n_faces` and `sharpness` are None. Not stored: `areas` of all face boxes in square pixels of the
    decoded picture, the largest first; `detail`, a message about a rejection.
    """

    status: str
    reason: str | None = None
    image: bytes | None = None
    bbox: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    yaw: float | None = None
    pitch: float | None = None
    roll: float | None = None
    turned: int | None = None
    embedding: np.ndarray | None = None
    det_score: float | None = None
    n_faces: int | None = None
    sharpness: float | None = None
    expression: str | None = None
    expression_confidence: float | None = None
    expression_source: str | None = None
    pose: str | None = None
    pose_spread: float | None = None
    pose_source: str | None = None
    prompt: str | None = None
    face_prompt: str | None = None
    domain: str = "unknown"
    areas: tuple[float, ...] = field(default=(), compare=False)
    detail: str = field(default="", compare=False)


@dataclass(frozen=True)
class FoundFace:
    """One face of a picture, in its pixels: box (4,), key points (5, 2), landmarks (68, 2), all float32."""

    bbox: np.ndarray
    keypoints: np.ndarray
    landmarks: np.ndarray
    det_score: float
    pose: Pose
    embedding: np.ndarray | None = None
