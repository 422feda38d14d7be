"""Define the interfaces of the analysers: detector, recogniser, landmarker, pose estimator and caption source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from model.face.face_prompts import pose_of_yaw


@dataclass(frozen=True)
class Detection:
    """One detected face, in pixels of the picture.

    `bbox` (4,) float32: x0, y0, x1, y1; `keypoints` (5, 2) float32: the eyes left and right in the picture, nose
    tip, mouth corners; `score` in [0, 1].
    """

    bbox: np.ndarray
    keypoints: np.ndarray
    score: float

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return float((self.bbox[2] - self.bbox[0]) * (self.bbox[3] - self.bbox[1]))

    @property
    def side(self) -> float:
        """The shorter side of the box in pixels."""
        return float(min(self.bbox[2] - self.bbox[0], self.bbox[3] - self.bbox[1]))


@dataclass(frozen=True)
class Pose:
    """Rotation of a head in degrees: yaw > 0 to the picture's right, pitch > 0 up, roll > 0 clockwise.

    `spread` is the difference in yaw between several estimates, `open` whether it is too large to name a pose.
    """

    yaw: float
    pitch: float
    roll: float
    spread: float | None = None
    open: bool = False

    @property
    def word(self) -> str | None:
        """The pose in the words of `model.face.face_prompts`; None where it is open."""
        return None if self.open else pose_of_yaw(self.yaw)


@dataclass(frozen=True)
class CaptionRequest:
    """The input of a caption source.

    `image` (S, S, 3) uint8 RGB, `bbox` (4,) the face in its pixels, and the texts given with the photo.
    """

    image: np.ndarray
    bbox: np.ndarray
    prompt: str | None = None
    face_prompt: str | None = None


@dataclass(frozen=True)
class Caption:
    """The output of a caption source; None where it provides nothing.

    `expression` is one of model.face.face_prompts.EXPRESSIONS, `source` what named it and how sure it was, 0 to 1
    (`confidence`; both also where it is not sure enough to name one); `failed`: the source tried, but found no prompt.
    """

    prompt: str | None = None
    expression: str | None = None
    failed: bool = False
    confidence: float | None = field(default=None, compare=False)
    source: str | None = field(default=None, compare=False)


class FaceDetector(Protocol):
    """Finds faces."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Return the faces of a picture (H, W, 3) uint8 RGB, best score first; empty where there is none."""

    def quick_score(self, image: np.ndarray) -> float:
        """Return the best score in a picture of about 128 pixels a side; 0 where there is no face."""


class Recogniser(Protocol):
    """Embeds faces, so that people can be distinguished."""

    def embed(self, images: Sequence[np.ndarray], keypoints: Sequence[np.ndarray]) -> np.ndarray:
        """Return unit-norm embeddings (N, 512) float32 of N pictures with the key points (5, 2) of their faces."""


class Landmarker(Protocol):
    """Finds the 68 iBUG points of a face."""

    def landmarks(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> np.ndarray:
        """Return (N, 68, 2) float32 in pixels of N pictures (H, W, 3) uint8 RGB, given their face boxes (4,)."""


class PoseEstimator(Protocol):
    """Measures the rotation of heads; `pose_source` names it in the rows."""

    @property
    def pose_source(self) -> str:
        """What measures the poses."""

    def poses(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection], landmarks: Sequence[np.ndarray]
    ) -> list[Pose]:
        """Return the pose of the face of each picture, given its landmarks (68, 2) in pixels of the picture."""


class CaptionSource(Protocol):
    """Provides a prompt and an expression for photos."""

    def describe(self, requests: Sequence[CaptionRequest]) -> list[Caption]:
        """Return one caption per request, in order."""
