"""Draw hair as a shell around the head: every column is a strand from the crown to the hair's edge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.data.synthetic.camera import Array
from pipelines.data.synthetic.canvas import Canvas, Image, Mask, normals, paint_mesh, quad_mean
from pipelines.data.synthetic.features import mix
from pipelines.data.synthetic.head import Head, ramp, smooth_curve, smooth_path
from pipelines.data.synthetic.person import HAIR_COLOURS, Person
from pipelines.data.synthetic.skin import ramp_of, shade, skin_colour

_MIDDLE = np.array([0.0, -0.12, -0.08])
_COLUMNS, _ROWS = 161, 20
COVERS_EARS = ("bob", "long_straight", "long_wavy", "afro", "curly")
HANGS = ("bob", "long_straight", "long_wavy", "curly")


@dataclass(frozen=True)
class Cut:
    """A hair style: height of its edge at `angles` (degrees from the front), and thickness as share of the radius."""

    angles: tuple[float, ...]
    edge: tuple[float, ...]
    thickness: float
    roughness: float = 0.0
    wave: float = 0.0


_SHORT = (0, 28, 46, 60, 70, 84, 98, 125, 180)
_LONG = (0, 26, 48, 62, 70, 78, 92, 180)


def hair_colour(person: Person) -> Array:
    """Return the colour (3,) of a person's hair."""
    return np.clip(np.array(HAIR_COLOURS[person.hair_colour], np.float64) * (1 + 0.14 * person.hair_shift), 0, 255)


def cut_of(person: Person) -> Cut:
    """Return the cut of a person's hair; in front, its edge follows the person's hairline or fringe."""
    line = -0.60 + person.hairline
    length, volume = person.hair_length, person.hair_volume
    bangs = min(line + 0.24, -0.37) if person.fringe > 0.62 else line
    short = (line, line + 0.02, line + 0.10, line + 0.34, 0.02, 0.10, 0.10, 0.34, 0.46)
    fringed = (bangs, bangs, line + 0.16, *short[3:])
    pulled = (line, line + 0.02, line + 0.12, line + 0.34, -0.16, -0.12, -0.10, 0.2, 0.36)
    round_ = (line, line + 0.03, line + 0.14, line + 0.36, -0.05, 0.28, 0.34, 0.42, 0.5)

    def hanging(low: float, temple: float) -> tuple[float, ...]:
        return (bangs, bangs + 0.02, line + 0.2, -0.05, temple, low, low, low)

    cuts = {
        "buzz": Cut(_SHORT, short, 0.015, 0.1),
        "short": Cut(_SHORT, fringed, 0.08 + 0.06 * volume, 0.35),
        "side_part": Cut(_SHORT, short, 0.10 + 0.08 * volume, 0.15),
        "spiky": Cut(_SHORT, short, 0.12 + 0.05 * volume, 0.6),
        "bun": Cut(_SHORT, pulled, 0.05 + 0.03 * volume, 0.1),
        "ponytail": Cut(_SHORT, pulled, 0.05 + 0.03 * volume, 0.1),
        "pigtails": Cut(_SHORT, pulled, 0.05 + 0.03 * volume, 0.1),
        "afro": Cut(_SHORT, round_, 0.30 + 0.22 * volume, 1.0),
        "curly": Cut(_LONG, hanging(0.42 + 0.5 * length, 0.3), 0.22 + 0.12 * volume, 0.9, 0.03),
        "bob": Cut(_LONG, hanging(0.52 + 0.25 * length, 0.3), 0.12 + 0.07 * volume, 0.1),
        "long_wavy": Cut(_LONG, hanging(1.15 + 0.55 * length, 0.5), 0.12 + 0.06 * volume, 0.1, 0.045),
        "long_straight": Cut(_LONG, hanging(1.15 + 0.6 * length, 0.5), 0.08 + 0.05 * volume, 0.1),
    }
    return cuts[person.hair_style]


class Hair:
    """The hair of one head, built once and drawn in layers: behind the body, behind the head, over the head."""

    def __init__(self, head: Head, light: Array, strength: float) -> None:
        self.head, self.light, self.strength = head, light, strength
        self.person = head.person
        self.colour = hair_colour(self.person)
        self.rng = np.random.default_rng(self.person.texture_seed + 1)
        self.shell = None if self.person.hair_style == "bald" else self._shell()

    def _shell(self) -> tuple[Array, Array]:
        person, cut = self.person, cut_of(self.person)
        degrees = np.linspace(-180, 180, _COLUMNS)
        t = np.linspace(0, 1, _ROWS) ** 1.35
        edge = smooth_curve(np.abs(degrees), np.array(cut.angles, float), np.array(cut.edge, float))
        # A parting moves the lowest point of the front hairline to one side.
        front = np.exp(-((degrees / 48) ** 2))
        if person.hair_style in ("side_part", "short") or (person.hair_style in HANGS and person.fringe <= 0.62):
            edge = edge + 0.10 * front * np.tanh(degrees / 18) * person.part - 0.03 * front
        jagged = (
            self.rng.normal(0, 1, _COLUMNS) * 0.5 + np.repeat(self.rng.normal(0, 1, _COLUMNS // 3 + 1), 3)[:_COLUMNS]
        )
        edge = edge + 0.03 * jagged * (0.25 + cut.roughness) * (edge > -0.9)
        height = -1.0 + (edge[None] + 1.0) * t[:, None]
        self.height, self.degrees = height, degrees[None]
        angle = np.radians(degrees)[None] + 0.30 * person.part * t[:, None] * (1 - t[:, None]) * front[None] * 2.0
        head = self.head
        body = head.around(angle, np.minimum(height, 0.05), nose=False).astype(np.float64)
        thickness = cut.thickness * (1 - 0.75 * front[None] * t[:, None] ** 4) * np.ones_like(height)
        thickness = thickness * (1 - 0.55 * ramp(t, 0.8, 1.0)[:, None] * (person.hair_style not in HANGS))
        if person.hair_style in ("afro", "curly"):
            bumps = self.rng.normal(0, 1, (_ROWS, _COLUMNS))
            thickness = thickness * (1 + 0.16 * bumps)
        if person.hair_style == "spiky":
            spikes = np.abs(self.rng.normal(0, 1, (_ROWS, _COLUMNS))) * ((np.arange(_COLUMNS) % 4) == 0)
            thickness = thickness + 0.13 * spikes * (t[:, None] < 0.75)
        if person.hair_style == "side_part":
            thickness = thickness + 0.07 * front[None] * ramp(np.sin(np.pi * t), 0.1, 1.0)[:, None]
        points = _MIDDLE + (body - _MIDDLE) * (1 + thickness[..., None])
        hang = np.maximum(height - 0.05, 0)
        points[..., 1] += hang
        # Long hair hangs slightly inwards at the back and outwards over the shoulders.
        points[..., 0] *= 1 + 0.20 * ramp(hang, 0.1, 1.2) * ramp(np.abs(degrees), 66, 96)[None]
        points[..., 2] += 0.05 * hang * (np.cos(angle) > 0)
        if cut.wave:
            phase = np.repeat(self.rng.uniform(0, 2 * np.pi, _COLUMNS // 6 + 1), 6)[:_COLUMNS]
            sway = cut.wave * np.sin(9 * height + phase[None] * 0.35) * ramp(height, -0.5, 0.3)
            points[..., 0] += sway * np.cos(angle) + sway * 0.6
            points[..., 2] += sway * 0.7
        points = points.astype(np.float32)
        points[:, -1] = points[:, 0]
        return points, self._brightness(points, cut)

    def _brightness(self, points: Array, cut: Cut) -> Array:
        normal = normals(points)
        base = shade(normal, self.head.camera, self.light, self.strength)
        facing = self.head.camera.turn(normal) @ self.light
        gloss = 46 * np.exp(-(((facing - 0.80) / 0.13) ** 2)) * (1 - 0.8 * min(cut.roughness, 1.0))
        columns = points.shape[1]
        strands = (
            20 * self.rng.normal(0, 1, columns) + 12 * np.repeat(self.rng.normal(0, 1, columns // 4 + 1), 4)[:columns]
        )
        texture = 30 * cut.roughness * self.rng.normal(0, 1, points.shape[:2])
        roots = -34 * np.exp(-((np.linspace(0, 1, points.shape[0]) / 0.12) ** 2))[:, None]
        return quad_mean(
            np.clip(base + gloss + strands[None] * (1 - 0.5 * min(cut.roughness, 1)) + texture + roots, 0, 255)
        )

    def _paint(self, canvas: Canvas, points: Array, brightness: Array, facing: int, keep: Mask | None = None) -> None:
        colour, skin = self.colour, skin_colour(self.person)
        if self.person.hair_style == "buzz":
            colour = mix(colour, skin * 0.7, 0.28)
        shades = ramp_of(colour, 0.3)[brightness.astype(np.uint8)]
        paint_mesh(canvas.image, points, self.head.camera, shades, facing=facing, keep=keep)

    def _far(self) -> Mask:
        """Return a mask of the shell's quads that are beyond the visible edge of the head, which covers them."""
        centre = quad_mean(np.stack(np.broadcast_arrays(self.height, self.degrees), -1))
        low, high = self.head.visible_edges(np.minimum(centre[..., 0], 0.9))
        angle = np.radians(centre[..., 1])
        return np.asarray(((angle > high + 0.12) | (angle < low - 0.12)) & (centre[..., 0] > -0.75))

    def behind_body(self, canvas: Canvas) -> None:
        """Draw the inside of hanging hair, which neck and clothes cover."""
        if self.shell is not None and self.person.hair_style in (*HANGS, "afro"):
            points, brightness = self.shell
            self._paint(canvas, points, brightness * 0.38, -1)

    def behind_head(self, canvas: Canvas) -> None:
        """Draw the parts that the head covers: the far side of the hair, buns, tails and pigtails."""
        if self.shell is not None:
            self._paint(canvas, *self.shell, 1, self._far())
        for points, brightness, near in self._tails():
            if not near:
                self._paint(canvas, points, brightness, 1)

    def over_head(self, canvas: Canvas, mask: Image) -> None:
        """Draw the hair's outside, and its shadow on the skin inside `mask`, over the head."""
        if self.shell is not None:
            unit = self.head.camera.unit
            front = np.abs(self.degrees[0]) < 64
            if self.person.hair_style != "buzz":
                line = self.head.camera.project(self.shell[0][-1, front] + np.array([0, 0.03, 0], np.float32))[0]
                dark = skin_colour(self.person) * np.array([0.5, 0.42, 0.42])
                canvas.line(line, dark, 0.09 * unit, 0.5, soft=0.025 * unit, clip=mask)
            self._paint(canvas, *self.shell, 1, ~self._far())
        for points, brightness, near in self._tails():
            if near:
                self._paint(canvas, points, brightness, 1)

    def outline(self) -> Array:
        """Return the pixels (N, 2) of the hair's surface; none of a bald head."""
        parts = [tail[0] for tail in self._tails()] + ([] if self.shell is None else [self.shell[0]])
        pixels = [self.head.camera.project(points)[0].reshape(-1, 2) for points in parts]
        return np.concatenate([np.zeros((0, 2), np.float32), *pixels])

    def _tails(self) -> list[tuple[Array, Array, bool]]:
        person, length = self.person, self.person.hair_length
        volume = 1 + 0.35 * person.hair_volume
        side = float(np.sign(person.part))
        paths: list[tuple[list[tuple[float, float, float]], list[float]]] = []
        if person.hair_style == "bun":
            y, z = (-1.12, -0.30) if person.fringe > 0.4 else (-0.86, -0.72)
            r = 0.25 * volume
            path = [(0.0, y + step * r, z) for step in (-1, -0.5, 0, 0.5, 1)]
            paths.append((path, [0.02, 0.86 * r, r, 0.86 * r, 0.02]))
        elif person.hair_style == "ponytail":
            low = 0.5 + 0.7 * length
            path = [
                (0.0, -0.72, -0.95),
                (0.25 * side, -0.74, -1.12),
                (0.62 * side, -0.3, -1.05),
                (0.86 * side, 0.3, -0.7),
                (0.84 * side, low, -0.45),
            ]
            paths.append((path, [0.10, 0.19 * volume, 0.24 * volume, 0.22 * volume, 0.03]))
        elif person.hair_style == "pigtails":
            low = 0.5 + 0.6 * length
            for s in (-1, 1):
                path = [
                    (0.70 * s, -0.34, -0.35),
                    (0.92 * s, -0.36, -0.36),
                    (1.06 * s, 0.0, -0.3),
                    (1.02 * s, 0.35, -0.2),
                    (0.94 * s, low, -0.1),
                ]
                paths.append((path, [0.08, 0.15 * volume, 0.2 * volume, 0.18 * volume, 0.03]))
        rng = np.random.default_rng(person.texture_seed + 2)
        return [self._tube(np.array(path), np.array(widths), rng) for path, widths in paths]

    def _tube(self, path: Array, widths: Array, rng: np.random.Generator) -> tuple[Array, Array, bool]:
        line = smooth_path(np.concatenate([path, widths[:, None]], axis=1), 15)
        middle, radius = line[:, :3], line[:, 3]
        around = np.linspace(-np.pi, np.pi, 31)
        ring = np.stack([np.sin(around), np.zeros_like(around), np.cos(around)], 1)
        points = (middle[:, None] + radius[:, None, None] * ring[None]).astype(np.float32)
        normal = np.broadcast_to(ring[None], points.shape) + np.array([0, -0.5, 0])
        base = shade(
            normal / np.linalg.norm(normal, axis=-1, keepdims=True), self.head.camera, self.light, self.strength
        )
        strands = 24 * rng.normal(0, 1, 31)
        brightness = quad_mean(np.clip(base + strands[None], 0, 255))
        near = float(self.head.camera.turn(middle.astype(np.float32))[:, 2].mean()) > -0.05
        return points, brightness, near
