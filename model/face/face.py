"""A reference face, several of one person, and a mix of two people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Combine = Literal["average", "concatenate"]
# Beyond four references nothing was measured, and memory and time grow with each.
MAX_REFERENCES = 8


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


@dataclass(frozen=True)
class ReferenceSet:
    """Several reference faces of one person, at least two and at most MAX_REFERENCES, the best one first.

    Expression and pose are those of the best one, or of a face prompt applied to it: the others are reconfigured to
    them, if the adapter has an IMR. Then `combine` makes one identity of the tokens z₁ … z_R (K, D): `average`, their
    mean (1/R) Σ zᵣ, token by token; `concatenate`, all R·K beside each other, which weigh as much as one reference.
    Raise ValueError for another number or word.
    """

    faces: tuple[Face, ...]
    combine: Combine = "average"

    def __post_init__(self) -> None:
        if not 2 <= len(self.faces) <= MAX_REFERENCES:
            raise ValueError(f"a set of {len(self.faces)} references: expected 2 to {MAX_REFERENCES} of one person")
        if self.combine not in get_args(Combine):
            raise ValueError(f"combine {self.combine!r}: expected one of {', '.join(get_args(Combine))}")
