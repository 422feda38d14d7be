"""Model the shape of a head: horizontal sections from crown to chin, with nose, brows and eye sockets."""

from __future__ import annotations

import numpy as np

from pipelines.data.synthetic.camera import Array, Camera
from pipelines.data.synthetic.motion import Motion
from pipelines.data.synthetic.person import Person

EYE_LINE, NOSE_ROOT, NOSE_BASE, MOUTH_LINE = 0.04, -0.04, 0.39, 0.64
_TABLE = np.linspace(-1.0, 1.02, 405)


def smooth_curve(x: Array, knots: Array, values: Array) -> Array:
    """Interpolate with monotone cubic Hermite pieces (Fritsch and Carlson 1980)."""
    step = np.diff(knots)
    slope = np.diff(values) / step
    inner = np.where(
        slope[:-1] * slope[1:] > 0,
        2 * slope[:-1] * slope[1:] / np.where(slope[:-1] + slope[1:] == 0, 1, slope[:-1] + slope[1:]),
        0,
    )
    tangent = np.concatenate([slope[:1], inner, slope[-1:]])
    index = np.clip(np.searchsorted(knots, x) - 1, 0, len(step) - 1)
    t = (x - knots[index]) / step[index]
    h = step[index]
    return np.asarray(
        values[index] * (1 + 2 * t) * (1 - t) ** 2
        + tangent[index] * h * t * (1 - t) ** 2
        + values[index + 1] * t * t * (3 - 2 * t)
        + tangent[index + 1] * h * t * t * (t - 1)
    )


def smooth_path(points: Array, count: int = 20) -> Array:
    """Return `count` points of a smooth path through points (N, D)."""
    knots, t = np.linspace(0, 1, len(points)), np.linspace(0, 1, count)
    return np.stack([smooth_curve(t, knots, points[:, c]) for c in range(points.shape[1])], axis=1)


def ramp(x: Array, low: float, high: float) -> Array:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    t = np.clip((np.asarray(x) - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


class Head:
    """The surface of a person's head with a facial expression.

    A point of the face is given by its frontal position (x, y) on the neutral face, or by (angle, y): the angle
    (radians) around the head is 0 in front and positive to the picture's right.
    """

    def __init__(self, person: Person, motion: Motion, camera: Camera) -> None:
        self.person, self.motion, self.camera = person, motion, camera
        w, jaw, square = person.head_width, person.jaw_width, person.jaw_squareness
        chin = 0.25 * person.chin_width
        # Round skull to the forehead, then temples, cheeks, jaw and chin.
        y = np.array([-1.0, -0.99, -0.96, -0.90, -0.80, -0.66, -0.42, -0.1, 0.2, 0.42, 0.62, 0.78, 0.90, 0.97, 1.02])
        dome = np.array([0.0, 0.17, 0.34, 0.54, 0.73, 0.88])
        brow = w * person.forehead
        half = np.concatenate(
            [
                dome * brow,
                [0.985 * brow, w, 0.985 * w * person.cheek],
                [
                    (0.90 + 0.02 * square) * w * (0.5 * person.cheek + 0.5 * jaw),
                    (0.76 + 0.09 * square) * w * jaw,
                    (0.58 + 0.13 * square) * w * jaw,
                    0.5 * (0.42 + 0.14 * square) * w * jaw + 0.62 * chin,
                    (0.80 + 0.1 * square) * chin,
                    0.10,
                ],
            ]
        )
        front = np.concatenate([dome * 0.73, [0.715, 0.725, 0.725, 0.735, 0.74, 0.72, 0.71, 0.68, 0.58]])
        back = -np.concatenate([dome * 0.93, [0.93, 0.95, 0.86, 0.70, 0.36, 0.0, -0.32, -0.46, -0.56]])
        middle = np.array([0, 0, 0, 0, -0.01, -0.02, -0.04, -0.06, -0.06, -0.02, 0.06, 0.2, 0.38, 0.48, 0.58])
        self._tables = [smooth_curve(_TABLE, y, values) for values in (half, front, back, middle)]
        self._edges = self._find_edges()

    def section(self, y: Array) -> tuple[Array, Array, Array, Array]:
        """Return half width, front, back and middle (z) of the sections at heights y."""
        half, front, back, middle = (np.interp(y, _TABLE, table) for table in self._tables)
        return half, front, back, middle

    def around(self, angle: Array, y: Array, grow: Array | float = 0.0, nose: bool = True) -> Array:
        """Return the points (..., 3) at angles and heights, at the distance `grow` above the skin."""
        angle, y = np.broadcast_arrays(np.asarray(angle, np.float64), np.asarray(y, np.float64))
        half, front, back, middle = self.section(y)
        cosine = np.cos(angle)
        depth = np.where(cosine > 0, (front - middle + grow) * np.abs(cosine) ** 0.85, (back - middle - grow) * -cosine)
        x = (half + grow) * np.sin(angle)
        z = middle + depth
        if nose:
            z = z + self._relief(x, y) * (cosine > 0)
        return np.stack([x, self._height(y), z], axis=-1).astype(np.float32)

    def point(self, x: Array, y: Array, lift: Array | float = 0.0) -> Array:
        """Return the points (..., 3) of the face at frontal positions, at the distance `lift` above the skin.

        A hidden point is moved to the visible edge of the head at the same height.
        """
        x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        half = self.section(y)[0]
        angle = np.arcsin(np.clip(x / np.maximum(half, 1e-3), -0.999, 0.999))
        heights, low, high = self._edges
        return self.around(np.clip(angle, np.interp(y, heights, low), np.interp(y, heights, high)), y, lift)

    def pixels(self, x: Array, y: Array, lift: Array | float = 0.0) -> Array:
        """Return the pixels (..., 2) of the points of the face at frontal positions."""
        return self.camera.project(self.point(x, y, lift))[0]

    def is_visible(self, x: float, y: float) -> bool:
        """Return whether the point of the face at a frontal position is visible; what the nose hides is ignored."""
        half = float(self.section(np.array(y))[0])
        angle = float(np.arcsin(np.clip(x / half, -0.999, 0.999)))
        heights, low, high = self._edges
        return float(np.interp(y, heights, low)) < angle < float(np.interp(y, heights, high))

    def visible_edges(self, y: Array) -> tuple[Array, Array]:
        """Return the angles (radians) of the left and right visible edges of the head at heights y."""
        heights, low, high = self._edges
        return np.interp(y, heights, low), np.interp(y, heights, high)

    def _find_edges(self) -> tuple[Array, Array, Array]:
        """Return heights, and the angles of the head's left and right visible edges there."""
        heights = np.linspace(-0.98, 1.0, 34)
        camera, found = self._upright(self.camera), []
        for angles, pick in (
            (np.radians(np.linspace(-175, -4, 115)), np.argmin),
            (np.radians(np.linspace(4, 175, 115)), np.argmax),
        ):
            pixels, _ = camera.project(self.around(angles[None], heights[:, None], nose=False))
            found.append(angles[pick(pixels[..., 0], axis=1)])
        return heights, found[0], found[1]

    @staticmethod
    def _upright(camera: Camera) -> Camera:
        """Return the camera without the head's roll: left and right edges are then extremes of x."""
        up = camera.rotation[:2, 1]
        length = max(float(np.hypot(*up)), 1e-6)
        c, s = up[1] / length, up[0] / length
        return Camera(
            np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32) @ camera.rotation, camera.unit, (0.0, 0.0)
        )

    def _height(self, y: Array) -> Array:
        """Return the heights with the jaw dropped and scaled to the person's head height."""
        chin = (self.motion.jaw_drop + self.person.chin_length) * ramp(y, 0.55, 1.0)
        return np.asarray(y * self.person.head_height + chin)

    def _relief(self, x: Array, y: Array) -> Array:
        """Return the relief (z) of nose, brow ridge, sockets, cheeks and lips at frontal positions."""
        person = self.person
        base = self.nose_base
        along = np.clip((y - NOSE_ROOT) / (base - 0.05 - NOSE_ROOT), 0, 1)
        under = 1 - ramp(y, base - 0.05 + 0.02 * person.nose_tip, base + 0.055)
        width = (0.075 + 0.075 * along**2) * person.nose_width
        bump = 0.24 * person.nose_bridge * (0.16 + 0.84 * along**1.25) * ramp(y, -0.22, 0.06) * under
        nose = bump * np.exp(-((x / width) ** 2) * 1.1)
        wings = 0.075 * np.exp(
            -(((np.abs(x) - 0.125 * person.nose_width) / 0.055) ** 2) - ((y - base + 0.045) / 0.065) ** 2
        )
        brow = 0.035 * np.exp(-(((y + 0.20) / 0.09) ** 2)) * np.exp(-((x / 0.45) ** 4))
        eye_x = 0.30 * person.eye_spacing
        socket = -0.055 * np.exp(-(((np.abs(x) - eye_x) / 0.17) ** 2) - ((y - EYE_LINE) / 0.13) ** 2)
        bulge = 0.02 + 0.035 * self.motion.cheek_raise
        cheek = bulge * np.exp(-(((np.abs(x) - 0.40) / 0.16) ** 2) - ((y - 0.36) / 0.14) ** 2)
        lips = 0.05 * np.exp(-((x / 0.22) ** 2) - ((y - MOUTH_LINE - person.mouth_height) / 0.10) ** 2)
        chin = 0.045 * np.exp(-((x / 0.16) ** 2) - ((y - 0.90) / 0.08) ** 2)
        return np.asarray(nose + wings + brow + socket + cheek + lips + chin)

    @property
    def nose_base(self) -> float:
        """The height of the base of the nose."""
        return NOSE_ROOT + (NOSE_BASE - NOSE_ROOT) * self.person.nose_length - 0.03 * self.motion.nose_wrinkle

    def mesh(self) -> tuple[Array, Array]:
        """Return the head's grid (rows, columns, 3), finest on the face, and the angles (radians) of its columns."""
        fine = np.concatenate([np.linspace(-36, 36, 33), np.linspace(42, 180, 20)])
        angles = np.radians(np.concatenate([-fine[33:][::-1], fine]))
        rows = np.concatenate(
            [-1.0 + 0.7 * np.linspace(0, 1, 15) ** 1.6, np.linspace(-0.26, 0.56, 32), np.linspace(0.6, 1.02, 16)]
        )
        return self.around(angles[None], rows[:, None]), angles
