"""Draw neck and clothes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.data.synthetic.camera import Array
from pipelines.data.synthetic.canvas import Canvas, Colour, circle
from pipelines.data.synthetic.features import mix
from pipelines.data.synthetic.head import Head
from pipelines.data.synthetic.scene import COLOURS, Scene

_HALF_SHOULDERS = np.array(
    [[0.0, 1.20], [0.36, 1.04], [0.62, 1.10], [0.98, 1.20], [1.26, 1.38], [1.42, 1.70], [1.50, 2.2], [1.50, 3.4]]
)


def _mirrored(half: Array) -> Array:
    return np.concatenate([half, half[::-1] * [-1, 1]])


def draw_body(canvas: Canvas, head: Head, scene: Scene, colour: Array) -> None:
    """Draw the neck in skin `colour` and the clothes of the scene, behind the head."""
    unit, person = head.camera.unit, head.person
    place = np.array(head.camera.centre)
    wide = 1.0 if person.presentation == "feminine" else 1.08
    cloth = np.array(COLOURS[scene.shirt_colour], np.float64)
    cloth = np.clip(cloth, 26, 236)
    dark, light = cloth * 0.66, mix(cloth, (255, 255, 255), 0.16)

    def to_pixels(points: npt.ArrayLike) -> Array:
        return (np.asarray(points, np.float32) * [wide, 1] * unit + place).astype(np.float32)

    def stripe(half: npt.ArrayLike, paint: Colour, width: float, alpha: float = 1.0) -> None:
        for side in (-1, 1):
            canvas.line(to_pixels(np.asarray(half) * [side, 1]), paint, width * unit, alpha)

    if scene.shirt_style == "hoodie":
        hood = np.array([[0.0, 0.70], [0.42, 0.72], [0.68, 0.88], [0.74, 1.06], [0.5, 1.3], [0.0, 1.4]])
        canvas.polygon(to_pixels(_mirrored(hood)), dark)
    _neck(canvas, head, colour, to_pixels([[0.0, 1.35]])[0])
    shoulders = to_pixels(_mirrored(_HALF_SHOULDERS))
    canvas.polygon(shoulders, cloth)
    fold = np.array([[0.92, 1.55], [0.98, 1.85], [1.0, 2.3]])
    stripe(fold, dark, 0.05, 0.6)
    canvas.line(to_pixels([[-1.2, 1.42], [-0.98, 1.26], [-0.62, 1.16]]), light, 0.05 * unit, 0.5, soft=0.02 * unit)
    neckline = np.array(
        [[x, 1.045 + 0.20 * np.sqrt(max(1 - (x / 0.44) ** 2, 0))] for x in np.linspace(-0.44, 0.44, 15)]
    )
    opening = np.concatenate([neckline, [[0.36, 0.98], [-0.36, 0.98]]])
    if scene.shirt_style == "striped shirt":
        band = (246, 246, 246) if cloth.mean() < 190 else (60, 60, 70)
        for y in (1.34, 1.56, 1.78, 2.0, 2.22):
            reach = float(np.interp(y, _HALF_SHOULDERS[2:, 1], _HALF_SHOULDERS[2:, 0])) * 0.985
            x = np.linspace(-reach, reach, 13)
            canvas.line(to_pixels(np.stack([x, y + 0.05 * (1 - (x / reach) ** 2)], 1)), band, 0.095 * unit)
    if scene.shirt_style == "sweater":
        roll = np.array([[0.0, 0.99], [0.36, 0.93], [0.45, 1.0], [0.46, 1.14], [0.0, 1.27]])
        canvas.polygon(to_pixels(_mirrored(roll)), mix(cloth, (0, 0, 0), 0.14))
        for x in np.linspace(-0.36, 0.36, 9):
            canvas.line(to_pixels([[x, 0.97], [x, 1.22 - 0.4 * x * x]]), dark, 0.018 * unit, 0.6)
        for x in np.linspace(-1.1, 1.1, 15):
            canvas.line(to_pixels([[x, 1.30], [x * 1.02, 2.4]]), dark, 0.014 * unit, 0.35)
        return
    canvas.polygon(to_pixels(opening), colour * 0.86)
    canvas.line(to_pixels(neckline), dark, 0.05 * unit)
    if scene.shirt_style == "shirt":
        collar = np.array([[0.40, 0.98], [0.50, 1.06], [0.34, 1.38], [0.04, 1.22]])
        for side in (-1, 1):
            canvas.polygon(to_pixels(collar * [side, 1]), light)
            canvas.line(to_pixels(np.array([[0.50, 1.06], [0.34, 1.38], [0.04, 1.22]]) * [side, 1]), dark, 0.02 * unit)
        canvas.line(to_pixels([[0.0, 1.25], [0.0, 2.4]]), dark, 0.02 * unit)
        for y in (1.42, 1.66, 1.9):
            button = np.array([0.05, y]) + 0.025 * circle(10)
            canvas.polygon(to_pixels(button), mix(light, (255, 255, 255), 0.5))
    elif scene.shirt_style == "hoodie":
        rim = np.array([[0.52, 0.98], [0.60, 1.12], [0.36, 1.32], [0.0, 1.38]])
        stripe(rim, dark, 0.11)
        string = np.array([[0.20, 1.32], [0.23, 1.56], [0.21, 1.74]])
        stripe(string, (240, 240, 236) if cloth.mean() < 200 else (90, 90, 96), 0.04)


def _neck(canvas: Canvas, head: Head, colour: Array, low: Array) -> None:
    person, unit = head.person, head.camera.unit
    top = head.camera.project(np.array([0.0, 0.30, -0.20], np.float32))[0]
    half = 0.40 * person.neck_width * unit
    t = np.linspace(0, 1, 8)[:, None]
    middle = top + (low - top) * t
    width = half * (0.86 + 0.30 * t**3)
    left, right = middle - width * [1, 0], middle + width * [1, 0]
    canvas.polygon(np.concatenate([left, right[::-1]]).astype(np.float32), colour * 0.86)
    # The shadow of the head on the neck.
    chin = head.camera.project(head.around(np.radians(np.linspace(-70, 70, 15)), np.array(0.93)))[0] + np.array(
        [0, 0.16 * unit]
    )
    across = np.array([half * 1.1, 0])
    shadow = np.concatenate([chin, [top + across, top - across]])
    mask = canvas.mask(np.concatenate([left, right[::-1]]))
    canvas.polygon(shadow.astype(np.float32), colour * 0.60, 0.85, soft=0.03 * unit, clip=mask)
