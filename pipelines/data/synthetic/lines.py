"""Compute the curves of lids, brows and lips as seen from the front, for drawing and landmarks.

Curves are (N, 2) arrays of frontal positions (x, y) in half head heights, see pipelines.data.synthetic.head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.data.synthetic.camera import Array
from pipelines.data.synthetic.head import EYE_LINE, MOUTH_LINE
from pipelines.data.synthetic.motion import Motion
from pipelines.data.synthetic.person import Person


def _curve(x: Array, y: Array) -> Array:
    return np.stack(np.broadcast_arrays(x, y), axis=-1)


@dataclass(frozen=True)
class EyeShape:
    """One eye; `side` is -1 on the picture's left, 1 on its right. Positions s run from -1 (left) to 1 (right)."""

    side: int
    x: float
    y: float
    half_length: float
    upper: float
    lower: float
    tilt: float
    iris: float

    @staticmethod
    def of(person: Person, motion: Motion, side: int) -> EyeShape:
        """Return the shape of a person's eye with an expression."""
        size = person.eye_size
        return EyeShape(
            side=side,
            x=side * 0.31 * person.eye_spacing * person.head_width / 0.74,
            y=EYE_LINE,
            half_length=0.168 * size,
            upper=0.098 * size * person.eye_height * motion.upper_lid,
            lower=0.062 * size * person.eye_height * motion.lower_lid,
            tilt=person.eye_tilt,
            iris=0.082 * size * person.iris_size,
        )

    def _base(self, s: Array) -> Array:
        return self.y - self.tilt * s * self.side

    def lid(self, s: Array, upper: bool) -> Array:
        """Return points of a lid at positions s."""
        s = np.asarray(s, np.float64)
        bow = np.maximum(1 - s * s, 0)
        # The upper lid is highest near the nose; the lower lid is lowest away from the nose.
        rise = (
            -self.upper * bow**0.75 * (1 - 0.15 * s * self.side)
            if upper
            else self.lower * bow**0.85 * (1 + 0.2 * s * self.side)
        )
        return _curve(self.x + self.half_length * s, self._base(s) + rise)

    def outline(self) -> Array:
        """Return the opening of the eye as a closed polygon."""
        s = np.linspace(-1, 1, 13)
        return np.concatenate([self.lid(s, True), self.lid(s[::-1], False)[1:-1]])


def brow(person: Person, motion: Motion, side: int, s: Array) -> tuple[Array, Array]:
    """Return points of a brow's middle line and its thickness there; s runs from 0 (inner end) to 1 (outer end)."""
    s = np.asarray(s, np.float64)
    spread = person.head_width / 0.74
    inner, outer = 0.115 * spread - motion.brow_together, 0.53 * spread
    y = -0.185 - person.brow_height - 0.02 * (person.eye_size - 1)
    arch = -0.055 * person.brow_arch * np.sin(np.pi * np.clip(0.1 + 0.85 * s, 0, 1))
    tilt = person.brow_tilt * (0.5 - s)
    move = motion.brow_inner * (1 - s) ** 1.3 + motion.brow_outer * s
    thickness = 0.072 * person.brow_thickness * (1 - 0.72 * s**1.6) * np.clip(0.55 + 3 * s, 0, 1)
    return _curve(side * (inner + (outer - inner) * s), y + arch + tilt + move), thickness


class Mouth:
    """The lips; positions s run from -1 (left corner) to 1 (right corner)."""

    def __init__(self, person: Person, motion: Motion) -> None:
        self.person, self.motion = person, motion
        self.y = MOUTH_LINE + person.mouth_height
        self.half_width = max(0.245 * person.mouth_width + motion.corner_out, 0.08)
        self.power = float(np.interp(motion.mouth_round, [0, 1, 2], [1.0, 0.5, 0.22]))

    def _base(self, s: Array) -> Array:
        # The middle moves opposite to the corners, so that the mouth keeps its position.
        return self.y + self.motion.corner_down * (np.abs(s) ** 1.8 - 0.4)

    def _bow(self, s: Array) -> Array:
        return np.maximum(1 - s * s, 0) ** self.power

    def inner(self, s: Array, upper: bool) -> Array:
        """Return points of the inner edge of a lip at positions s."""
        s = np.asarray(s, np.float64)
        share = self.motion.upper_share if upper else self.motion.upper_share - 1
        sneer = -self.motion.sneer * (0.6 + 0.9 * s) * (1 - s * s) if upper else 0.0
        # Closed lips meet in a line that dips at the middle of the upper lip.
        dip = 0.012 * np.cos(3 * np.pi * np.clip(s, -1, 1)) * (1 - np.abs(s)) * (self.motion.mouth_open < 0.05)
        return _curve(self.half_width * s, self._base(s) - self.motion.mouth_open * share * self._bow(s) + sneer + dip)

    def outer(self, s: Array, upper: bool) -> Array:
        """Return points of the outer edge of a lip at positions s."""
        s = np.asarray(s, np.float64)
        points = self.inner(s, upper)
        fullness, balance = self.person.lip_fullness, self.person.lip_balance
        bow = np.maximum(1 - np.abs(s) ** 2.4, 0) ** 0.6
        if upper:
            cupid = 1 - 0.28 * np.exp(-((s / 0.14) ** 2)) * min(1.0, 2.0 - self.motion.mouth_round)
            points[:, 1] -= 0.062 * fullness / balance * bow * cupid
        else:
            points[:, 1] += (0.072 * fullness * balance - 0.015 * self.motion.pout) * bow
        return points
