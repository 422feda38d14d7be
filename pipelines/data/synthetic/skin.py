"""Draw the skin: shading, ears, blush, freckles, moles, beard and wrinkles."""

from __future__ import annotations

import cv2
import numpy as np

from pipelines.data.synthetic.camera import Array, Camera
from pipelines.data.synthetic.canvas import Canvas, Image, circle, normals, paint_mesh, quad_mean
from pipelines.data.synthetic.features import mix
from pipelines.data.synthetic.head import EYE_LINE, Head, smooth_path
from pipelines.data.synthetic.lines import Mouth
from pipelines.data.synthetic.person import SKIN_TONES, Person


def skin_colour(person: Person) -> Array:
    """Return the person's skin colour (3,), 0 to 255."""
    tones = np.array(SKIN_TONES, np.float64)
    place = np.clip(person.skin_tone + person.skin_shift, 0, len(tones) - 1)
    base = np.array([np.interp(place, np.arange(len(tones)), tones[:, c]) for c in range(3)])
    return np.clip(base + person.skin_warmth * np.array([5, 0, -7]), 0, 255)


def ramp_of(colour: Array, depth: float = 0.42) -> Image:
    """Return 256 shades (256, 3) of a colour from its shadow to its highlight; index 170 is the colour itself."""
    shadow = np.asarray(colour) * depth * np.array([1.05, 0.92, 0.92])
    light = mix(colour, (255, 248, 236), 0.38)
    level = np.arange(256)[:, None]
    shades = np.where(
        level < 170, shadow + (colour - shadow) * level / 170, colour + (light - colour) * (level - 170) / 85
    )
    return np.clip(shades, 0, 255).astype(np.uint8)


def light_direction(yaw: float, pitch: float) -> Array:
    """Return the unit vector towards the light in camera axes; angles in degrees."""
    a, b = np.radians([yaw, pitch])
    return np.array([np.sin(a) * np.cos(b), -np.sin(b), np.cos(a) * np.cos(b)], np.float32)


def shade(normal: Array, camera: Camera, light: Array, strength: float) -> Array:
    """Return the brightness, 0 to 255, of surfaces with these normals (head axes)."""
    facing = camera.turn(normal) @ light
    return np.clip(62 + 130 * strength * (0.22 + 0.78 * facing), 0, 255).astype(np.float32)


def paint_head(canvas: Canvas, head: Head, colour: Array, light: Array, strength: float) -> tuple[Image, Image]:
    """Paint the bare head; return its mask, and the angle around the head at every pixel in degrees + 128."""
    points, angles = head.mesh()
    brightness = quad_mean(shade(normals(points), head.camera, light, strength))
    column = np.clip(np.degrees((angles[:-1] + angles[1:]) / 2), -127, 127) + 128
    colours = np.stack([brightness, np.broadcast_to(column, brightness.shape), np.full(brightness.shape, 255)], -1)
    layers = np.zeros_like(canvas.image)
    paint_mesh(layers, points, head.camera, colours.astype(np.uint8))
    angle, mask = (np.ascontiguousarray(layers[..., c]) for c in (1, 2))
    # Blur only the head and the margin that the blur reaches: the rest is empty.
    sigma = 0.028 * head.camera.unit
    window = canvas.window(head.camera.project(points)[0].reshape(-1, 2), int(3 * sigma) + 3)
    near, level = mask[window], np.ascontiguousarray(layers[window][..., 0])
    weight = cv2.GaussianBlur(near, (0, 0), sigma).astype(np.float32)
    smooth = cv2.GaussianBlur(level, (0, 0), sigma).astype(np.float32) * 255 / np.maximum(weight, 1)
    shades = ramp_of(colour)[np.clip(smooth, 0, 255).astype(np.uint8)]
    np.copyto(canvas.image[window], shades, where=near[..., None] > 0)
    return mask, angle


def ear(canvas: Canvas, head: Head, side: int, colour: Array) -> None:
    """Draw the ear on the picture's left (-1) or right (1) side of the head."""
    person, unit = head.person, head.camera.unit
    half = float(head.section(np.array(0.1))[0])
    size = person.ear_size
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    # An ear is a plate with its front edge on the head, wider at the top.
    height = 0.235 * size * np.sin(t) * (1 + 0.08 * np.cos(t))
    depth = 0.15 * size * np.cos(t) * (1 - 0.28 * np.sin(t))
    off = (0.02 + 0.10 * (0.4 + person.ear_angle)) * (0.5 - 0.5 * np.cos(t))
    out = side * (half * 0.96 + off)
    shape = np.stack([out, 0.13 + height, -0.15 - depth], axis=-1)
    for factor, share in ((1.0, 0.0), (0.5, 0.32)):
        middle = shape.mean(0, keepdims=True)
        pixels = head.camera.project((middle + (shape - middle) * factor).astype(np.float32))[0]
        if share == 0.0:
            canvas.polygon(pixels, mix(colour * 0.62, (120, 30, 30), 0.1))
            inner = middle + (shape - middle) * 0.90
            canvas.polygon(head.camera.project(inner.astype(np.float32))[0], mix(colour, (200, 70, 60), 0.10) * 0.96)
        else:
            canvas.polygon(pixels, mix(colour * 0.72, (190, 70, 60), 0.2), 0.8, soft=0.02 * unit)


def relief(canvas: Canvas, head: Head, clip: Image, colour: Array) -> None:
    """Darken the eye sockets and lighten cheeks and forehead, like light from above.

    The shading of the mesh alone is too flat on dark skin: face detectors expect eyes darker than cheeks.
    """
    unit = head.camera.unit
    ring = circle(20)
    hollow, light = colour * np.array([0.5, 0.42, 0.42]), mix(colour, (255, 240, 224), 0.4)
    for side in (-1, 1):
        cheek = np.array([side * 0.40, 0.36]) + ring * np.array([0.16, 0.10])
        canvas.polygon(head.pixels(*cheek.T), light, 0.4, soft=0.06 * unit, clip=clip)
        socket = np.array([side * 0.33, EYE_LINE - 0.02]) + ring * np.array([0.25, 0.13])
        canvas.polygon(head.pixels(*socket.T), hollow, 0.5, soft=0.06 * unit, clip=clip)
    forehead = np.array([0.0, -0.42]) + ring * np.array([0.34, 0.10])
    canvas.polygon(head.pixels(*forehead.T), light, 0.4, soft=0.08 * unit, clip=clip)


def marks(canvas: Canvas, head: Head, clip: Image, colour: Array) -> None:
    """Draw blush, freckles and a mole."""
    person, unit = head.person, head.camera.unit
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    blush = mix(colour, (220, 60, 60), 0.45)
    raised = head.motion.cheek_raise
    for side in (-1, 1):
        x, y = side * 0.42 + 0.15 * np.cos(turn), 0.34 - 0.04 * raised + 0.11 * np.sin(turn)
        canvas.polygon(head.pixels(x, y), blush, 0.12 + 0.38 * person.blush, soft=0.07 * unit, clip=clip)
    rng = np.random.default_rng(person.texture_seed)
    if person.freckles > 0:
        spots = rng.uniform([-0.52, 0.12], [0.52, 0.42], (40, 2))[: int(18 + 22 * person.freckles)]
        sizes = rng.uniform(0.012, 0.022, len(spots))
        centres, radii = head.pixels(*spots.T), sizes * unit
        dark = mix(colour, (110, 50, 20), 0.62)
        small = turn[::3]
        for centre, radius in zip(centres, radii, strict=True):
            dot = centre + radius * np.stack([np.cos(small), np.sin(small)], 1)
            canvas.polygon(dot, dark, 0.8, clip=clip)
    if person.mole_size > 0:
        radius = 0.026 * person.mole_size
        mole = head.pixels(person.mole_x + radius * np.cos(turn), person.mole_y + radius * np.sin(turn))
        canvas.polygon(mole, mix(colour, (40, 18, 12), 0.86), clip=clip)


def wrinkles(canvas: Canvas, head: Head, clip: Image, colour: Array) -> None:
    """Draw the lines of the forehead, between the brows, and from nose to mouth."""
    person, motion, unit = head.person, head.motion, head.camera.unit
    dark = mix(colour, (60, 16, 16), 0.5)
    t = np.linspace(0, 1, 9)
    mouth = Mouth(person, motion)
    fold = 0.12 + 0.4 * person.wrinkles + 0.5 * max(motion.cheek_raise, motion.nose_wrinkle, 0.5 * motion.frown)
    for side in (-1, 1):
        corner = mouth.inner(np.array([float(side)]), True)[0]
        start = np.array([side * 0.18, head.nose_base - 0.03])
        end = np.array([corner[0] + side * 0.07, max(corner[1] - 0.02, head.nose_base + 0.14)])
        if not head.is_visible(*end):
            continue
        bend = np.array([side * 0.05, -0.02])
        line = start + (end - start) * t[:, None] + bend * np.sin(np.pi * t)[:, None]
        widths = 0.022 * unit * np.sin(np.pi * (0.1 + 0.8 * t))
        canvas.line(head.pixels(*line.T), dark, widths, min(fold, 0.9), soft=0.006 * unit, clip=clip)
        if motion.frown > 0.2 and head.is_visible(side * 0.08, -0.2):
            line = np.stack([side * (0.055 - 0.02 * t), -0.29 + 0.17 * t], 1)
            canvas.line(head.pixels(*line.T), dark, 0.022 * unit, min(motion.frown, 1.0), clip=clip)
    lines = max(motion.forehead_lines, 0.6 * person.wrinkles)
    if lines > 0.2:
        for y in (-0.40, -0.48, -0.56):
            x = np.linspace(-0.27, 0.27, 9)
            canvas.line(
                head.pixels(x, y + 0.03 * np.cos(8 * x)),
                dark,
                0.016 * unit,
                min(0.6 * lines, 0.7),
                soft=0.004 * unit,
                clip=clip,
            )


def beard(canvas: Canvas, head: Head, clip: Image, hair: Array, colour: Array) -> None:
    """Draw the beard; call this before `features.mouth`, which covers part of it."""
    person, unit = head.person, head.camera.unit
    if person.beard == "none":
        return
    mouth = Mouth(person, head.motion)
    s = np.linspace(-1, 1, 15)
    alpha = 0.95 * person.beard_density if person.beard != "stubble" else 0.42 * person.beard_density
    shade_of = mix(hair, colour * 0.5, 0.15)
    soft = 0.012 * unit if person.beard != "stubble" else 0.03 * unit
    upper_lip, width = mouth.outer(s, True), mouth.half_width
    if person.beard in ("full", "stubble"):
        # Along the jaw's edge from sideburn to chin, and back over the cheek to the upper lip.
        height = np.linspace(EYE_LINE + 0.05, 1.01, 16)
        edge = np.stack([head.section(height)[0] * 0.999, height], 1)
        side = edge[0, 0]
        cheek = [[0.90 * side, height[0]], [0.885 * side, 0.28], [0.80 * side, 0.44], [0.62 * side, 0.545]]
        lip = [[0.40 * side, 0.575], [1.05 * width, mouth.y - 0.10], [0.5 * width, mouth.y - 0.115]]
        half = np.concatenate([edge[::-1], smooth_path(np.array(cheek + lip))])
        outline = np.concatenate([half, half[::-1] * np.array([-1.0, 1.0])])
        canvas.polygon(head.pixels(*outline.T), shade_of, alpha, soft=soft, clip=clip)
    if person.beard in ("moustache", "goatee", "full"):
        low = np.stack([1.22 * width * s, upper_lip[:, 1] + 0.02 + 0.05 * s**4], 1)
        high = np.stack([1.05 * width * s, head.nose_base + 0.055 + 0.08 * np.abs(s) ** 1.5], 1)
        high[:, 1] = np.minimum(high[:, 1], low[:, 1] - 0.02)
        canvas.polygon(head.pixels(*np.concatenate([high, low[::-1]]).T), shade_of, alpha, soft=soft, clip=clip)
    if person.beard == "goatee":
        outer = mouth.outer(s, False)
        low_y = np.minimum(outer[:, 1].max() + 0.30 * np.maximum(1 - s**2, 0) ** 0.5, 1.0)
        bottom = np.stack([1.12 * width * s, low_y], 1)
        top = np.stack([1.12 * width * s, mouth.y + 0.06 * np.maximum(1 - s * s, 0)], 1)
        canvas.polygon(head.pixels(*np.concatenate([top, bottom[::-1]]).T), shade_of, alpha, soft=soft, clip=clip)
