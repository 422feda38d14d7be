"""Draw glasses: rims in front of the eyes, a bridge, and temples back to the ears."""

from __future__ import annotations

import numpy as np

from pipelines.data.synthetic.camera import Array
from pipelines.data.synthetic.canvas import Canvas
from pipelines.data.synthetic.head import EYE_LINE, Head
from pipelines.data.synthetic.person import GLASSES_COLOURS


def _rim(style: str, size: float) -> Array:
    t = np.linspace(0, 2 * np.pi, 33)
    power = {"round": 1.0, "square": 0.35, "wide": 0.5}[style]
    width, height = {"round": (0.205, 0.205), "square": (0.215, 0.165), "wide": (0.235, 0.145)}[style]
    x = width * size * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** power
    y = height * size * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** power
    return np.stack([x, y], 1)


def draw_glasses(canvas: Canvas, head: Head) -> None:
    """Draw the person's glasses, if any, over face and hairline."""
    person, camera = head.person, head.camera
    if person.glasses == "none":
        return
    colour = GLASSES_COLOURS[person.glasses_colour]
    unit = camera.unit
    rim = _rim(person.glasses, person.glasses_size)
    eye_x = 0.31 * person.eye_spacing * person.head_width / 0.74
    z = float(head.around(np.array(0.0), np.array(EYE_LINE))[2]) + 0.08
    half = float(head.section(np.array(EYE_LINE))[0]) + 0.02
    facing = camera.rotation[2, 0]
    for side in (-1, 1):
        hinge = np.array([side * (eye_x + rim[:, 0].max()), EYE_LINE - 0.02, z - 0.16])
        behind = np.array([side * half, EYE_LINE - 0.02, -0.05])
        if facing * side > 0.12:
            temple = camera.project(np.stack([hinge, behind]).astype(np.float32))[0]
            canvas.line(temple, colour, 0.04 * unit)
        x = side * eye_x + rim[:, 0]
        # The frame bends backwards towards its hinges.
        bend = z - 0.16 * np.clip(np.abs(x) / (eye_x + rim[:, 0].max()), 0, 1) ** 2.5
        points = np.stack([x, EYE_LINE + 0.015 + rim[:, 1], bend], 1).astype(np.float32)
        pixels = camera.project(points)[0]
        canvas.polygon(pixels, (236, 244, 255), 0.10)
        canvas.line(pixels, colour, 0.042 * unit)
        glare = camera.project(points[[18, 19, 20, 21, 22]] * [1, 0.6, 1])[0]
        canvas.line(glare, (255, 255, 255), 0.03 * unit, 0.35)
    inner = eye_x - rim[:, 0].max()
    bridge = np.stack(
        [np.linspace(-inner, inner, 5), EYE_LINE - 0.01 - 0.03 * np.cos(np.linspace(-1.5, 1.5, 5)), np.full(5, z)], 1
    )
    canvas.line(camera.project(bridge.astype(np.float32))[0], colour, 0.042 * unit)
