"""A reference face, and a mix of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Face:
    """A reference face, already analysed.

    `embedding` (512,) float32, unit norm; `crop` (S, S, 3) uint8 RGB, aligned, without background; `landmarks` (68, 2)
    float32 in the unit crop frame (see face_geometry); `expression` and `pose` are words of face_prompts, `yaw` and
    `pitch` degrees, None where they are not known. Other conventions of the adapter may ask for the whole photo as
    `crop`, and for other landmarks in another frame (see conventions).
    """

    embedding: np.ndarray
    crop: np.ndarray
    landmarks: np.ndarray
    expression: str | None = None
    pose: str | None = None
    yaw: float | None = None
    pitch: float | None = None


@dataclass(frozen=True)
class Blend:
    """A mix of the identity tokens of two people, `share` (0 to 1) of `second` and the rest of `first`.

    A face prompt is applied to both before they are mixed, so that only identities are mixed, not expressions and
    poses. Raise ValueError for a share outside [0, 1].
    """

    first: Face
    second: Face
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share {self.share:g} of the second face: expected a number between 0 and 1")
