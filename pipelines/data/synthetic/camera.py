"""Project head coordinates to pixels: rotation by yaw, pitch and roll, then a slight perspective."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]

DISTANCE = 9.0
"""Distance of the camera from the middle of the head, in half head heights."""


@dataclass(frozen=True)
class Camera:
    """A camera in front of a head.

    Head coordinates: x to the picture's right, y down, z towards the camera, in half head heights, origin in the middle
    of the head. `unit`: pixels of one half head height; `centre`: pixel position of the origin.
    """

    rotation: Array
    unit: float
    centre: tuple[float, float]

    @staticmethod
    def facing(yaw: float, pitch: float, roll: float, unit: float, centre: tuple[float, float]) -> Camera:
        """Return the camera for a head turned by these angles (degrees)."""
        a, b, c = np.radians([yaw, pitch, roll])
        turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        tilt = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        return Camera((tilt @ nod @ turn).astype(np.float32), unit, centre)

    def turn(self, points: Array) -> Array:
        """Rotate points (..., 3) from head to camera axes."""
        return (points @ self.rotation.T).astype(np.float32)

    def project(self, points: Array) -> tuple[Array, Array]:
        """Return pixels (..., 2) and depth (...) of points (..., 3); greater depth is closer to the camera."""
        turned = self.turn(np.asarray(points, np.float32))
        depth = turned[..., 2]
        factor = self.unit * DISTANCE / (DISTANCE - depth)
        pixels = turned[..., :2] * factor[..., None] + np.asarray(self.centre, np.float32)
        return pixels.astype(np.float32), depth
