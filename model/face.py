"""One face as the model sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Face:
    """A reference face, already looked at.

    `embedding` (512,) float32, unit norm; `crop` (S, S, 3) uint8 RGB, aligned, background out; `landmarks` (68, 2)
    float32 in the unit crop frame (see face_geometry); `expression` and `pose` are words of face_prompts.
    """

    embedding: np.ndarray
    crop: np.ndarray
    landmarks: np.ndarray
    expression: str = "neutral"
    pose: str = "front"
