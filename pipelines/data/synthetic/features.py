"""Draw eyes, brows, nose and mouth on a head."""

from __future__ import annotations

import cv2
import numpy as np

from pipelines.data.synthetic.camera import Array
from pipelines.data.synthetic.canvas import Canvas, Colour, Image, circle
from pipelines.data.synthetic.head import Head
from pipelines.data.synthetic.landmarks import nose_half_width
from pipelines.data.synthetic.lines import EyeShape, Mouth, brow
from pipelines.data.synthetic.person import EYE_COLOURS

_CIRCLE = circle(20)
_LASH = (28, 18, 16)
_ACROSS = np.linspace(-1, 1, 21)


def mix(first: Colour, second: Colour, share: float) -> Array:
    """Return the colour `share` of the way from the first to the second."""
    return np.asarray(first, np.float64) * (1 - share) + np.asarray(second, np.float64) * share


def eyes(canvas: Canvas, head: Head, clips: dict[int, Image], skin: Array, gaze: tuple[float, float]) -> None:
    """Draw both eyes; `clips` are the masks of the visible left (-1) and right (1) half of the face."""
    person, motion, unit = head.person, head.motion, head.camera.unit
    for side in (-1, 1):
        eye, clip = EyeShape.of(person, motion, side), clips[side]
        if not head.is_visible(eye.x - side * 0.4 * eye.half_length, eye.y):
            continue
        shade, dark = mix(skin, (60, 20, 20), 0.45), mix(skin, (30, 8, 10), 0.62)
        around = eye.x + (eye.half_length * 1.25) * _CIRCLE[:, 0], eye.y - 0.03 + 0.16 * _CIRCLE[:, 1]
        canvas.polygon(head.pixels(*around), shade, 0.35, soft=0.04 * unit, clip=clip)
        opening = head.pixels(*eye.outline().T)
        inside = cv2.bitwise_and(canvas.mask(opening), clip)
        canvas.polygon(opening, mix((250, 248, 244), skin, 0.35), clip=clip)
        x = eye.x + eye.half_length * 0.3 * gaze[0]
        y = eye.y - 0.012 + 0.035 * gaze[1] + 0.05 * motion.gaze_down
        radius = eye.iris
        iris = np.array(EYE_COLOURS[person.eye_colour], np.float64)
        for factor, colour in (
            (1.0, iris * 0.45),
            (0.84, iris),
            (0.55, mix(iris, (255, 255, 255), 0.22)),
            (0.46, _LASH),
        ):
            ring = head.pixels(x + radius * factor * _CIRCLE[:, 0], y + radius * factor * _CIRCLE[:, 1])
            canvas.polygon(ring, colour, clip=inside)
        lid = eye.lid(_ACROSS, True)
        under = np.concatenate([lid, lid[::-1] + np.array([0, 0.03])])
        canvas.polygon(head.pixels(*under.T), (70, 50, 50), 0.35, clip=inside)
        glint = head.pixels(
            x - 0.3 * radius + 0.26 * radius * _CIRCLE[:, 0], y - 0.32 * radius + 0.26 * radius * _CIRCLE[:, 1]
        )
        canvas.polygon(glint, (255, 255, 255), clip=inside)
        low = head.pixels(*eye.lid(_ACROSS, False).T)
        canvas.line(low, dark, 0.016 * unit * np.sqrt(1.02 - _ACROSS**2), clip=clip)
        weight = 0.022 + 0.02 * person.lashes
        canvas.line(head.pixels(*lid.T), _LASH, unit * weight * (0.55 + 0.45 * (1 + _ACROSS * side) / 2), clip=clip)
        if person.lashes > 0.5:
            corner = eye.lid(np.array([0.75 * side, 1.0 * side]), True)
            tip = corner[-1] + np.array([side * 0.045, -0.035])
            canvas.line(
                head.pixels(*np.stack([*corner, tip]).T), _LASH, unit * np.array([0.02, 0.03, 0.006]), clip=clip
            )
        crease = eye.lid(_ACROSS * 0.95, True) - np.array([0, 0.035 + 0.012 * motion.upper_lid])
        canvas.line(head.pixels(*crease.T), dark, 0.014 * unit, 0.7, clip=clip)
        if motion.upper_lid < 0.75 and motion.tear > 0:
            canvas.polygon(head.pixels(*np.concatenate([lid, crease[::-1]]).T), mix(skin, shade, 0.5), 0.7, clip=clip)
        bag = eye.lid(_ACROSS * 0.8, False) + np.array([0, 0.04])
        strength = 0.2 + 0.35 * person.wrinkles + 0.4 * motion.cheek_raise
        canvas.line(head.pixels(*bag.T), shade, 0.014 * unit, min(strength, 0.9), soft=0.006 * unit, clip=clip)
        if motion.tear > 0.3:
            drop_x, drop_y = eye.x + side * 0.05, eye.y + eye.lower
            size = 0.036 * min(motion.tear, 1.0)
            tear = np.stack([drop_x + size * _CIRCLE[:, 0], drop_y + 0.13 + size * 1.25 * _CIRCLE[:, 1]], 1)
            tear = np.concatenate([tear, [[drop_x, drop_y + 0.02]]])
            hull = cv2.convexHull(head.pixels(*tear.T))[:, 0]
            canvas.polygon(hull, (150, 206, 246), 0.85, clip=clip)


def brows(canvas: Canvas, head: Head, clips: dict[int, Image], colour: Array) -> None:
    """Draw both brows."""
    s = np.linspace(0, 1, 13)
    for side in (-1, 1):
        if not head.is_visible(side * 0.2, -0.2):
            continue
        line, thickness = brow(head.person, head.motion, side, s)
        outline = np.concatenate(
            [line - np.stack([0 * s, thickness / 2], 1), (line + np.stack([0 * s, thickness / 2], 1))[::-1]]
        )
        canvas.polygon(head.pixels(*outline.T), colour, clip=clips[side])


def nose(canvas: Canvas, head: Head, clip: Image, skin: Array) -> None:
    """Draw nostrils, wings, highlight and wrinkles of the nose; its shape is part of the head."""
    unit, base, wing, motion = head.camera.unit, head.nose_base, nose_half_width(head), head.motion
    dark, light = mix(skin, (40, 8, 8), 0.6), mix(skin, (255, 250, 240), 0.35)
    ridge = np.linspace(0.06, base - 0.09, 8)
    canvas.line(head.pixels(0 * ridge, ridge), light, 0.05 * unit, 0.55, soft=0.02 * unit, clip=clip)
    tip = head.pixels(0.05 * _CIRCLE[:, 0], base - 0.07 + 0.035 * _CIRCLE[:, 1])
    canvas.polygon(tip, light, 0.7, soft=0.02 * unit, clip=clip)
    for side in (-1, 1):
        hole = head.pixels(side * wing * 0.48 + 0.045 * _CIRCLE[:, 0], base + 0.012 + 0.019 * _CIRCLE[:, 1])
        canvas.polygon(hole, mix(skin, (30, 4, 6), 0.82), clip=clip)
        t = np.linspace(0, 1, 9)
        curve_x = side * wing * (0.80 + 0.22 * np.sin(np.pi * t))
        curve_y = base - 0.10 + 0.125 * t
        canvas.line(
            head.pixels(curve_x, curve_y), dark, 0.022 * unit * np.sin(np.pi * (0.15 + 0.7 * t)), 0.8, clip=clip
        )
        if motion.nose_wrinkle > 0.2 and head.is_visible(side * 0.1, 0.05):
            for k in range(3):
                x = side * np.linspace(0.03, 0.115, 4)
                y = np.linspace(0.05, 0.0, 4) + 0.065 * k - 0.03
                canvas.line(head.pixels(x, y), dark, 0.018 * unit, min(0.9 * motion.nose_wrinkle, 1.0), clip=clip)


def mouth(canvas: Canvas, head: Head, clip: Image, skin: Array) -> None:
    """Draw lips, teeth, tongue and the inside of an open mouth."""
    person, motion, unit = head.person, head.motion, head.camera.unit
    shape = Mouth(person, motion)
    redness = 0.35 + 0.6 * person.lip_redness
    lip = mix(mix(skin, (150, 40, 50), 0.45), (206, 36, 66), 0.75 * (redness - 0.35))
    line_colour = mix(lip, (40, 0, 8), 0.65)
    s = _ACROSS
    inner_up, inner_low = shape.inner(s, True), shape.inner(s, False)
    outer_up, outer_low = shape.outer(s, True), shape.outer(s, False)
    below = outer_low[5:-5] + np.array([0, 0.03])
    canvas.line(head.pixels(*below.T), mix(skin, (50, 12, 12), 0.5), 0.035 * unit, 0.4, soft=0.018 * unit, clip=clip)
    canvas.polygon(head.pixels(*np.concatenate([outer_up, outer_low[::-1]]).T), mix(lip, (60, 0, 10), 0.18), clip=clip)
    lower = np.concatenate([inner_low, outer_low[::-1]])
    canvas.polygon(head.pixels(*lower.T), lip, clip=clip)
    shine = inner_low[7:-7] * 0.45 + outer_low[7:-7] * 0.55
    canvas.line(head.pixels(*shine.T), mix(lip, (255, 255, 255), 0.4), 0.02 * unit, 0.6, soft=0.008 * unit, clip=clip)
    if motion.mouth_open > 0.04:
        _open_mouth(canvas, head, clip, inner_up, inner_low)
    else:
        press = 0.026 if motion.frown > 0 else 0.02
        canvas.line(head.pixels(*inner_up.T), line_colour, press * unit * (1.15 - 0.6 * s**2), clip=clip)
    for side in (-1, 1):
        corner = shape.inner(np.array([side * 1.0]), True)[0]
        if not head.is_visible(*corner):
            continue
        bend = np.array([[0, -0.02], [side * 0.03, 0.0 + 0.2 * motion.corner_down]])
        canvas.line(head.pixels(*(corner + bend).T), line_colour, unit * np.array([0.026, 0.01]), 0.8, clip=clip)


def _open_mouth(canvas: Canvas, head: Head, clip: Image, inner_up: Array, inner_low: Array) -> None:
    motion, unit = head.motion, head.camera.unit
    opening = head.pixels(*np.concatenate([inner_up, inner_low[::-1]]).T)
    inside = cv2.bitwise_and(canvas.mask(opening), clip)
    canvas.polygon(opening, (74, 14, 22), clip=inside)
    middle = (inner_up + inner_low) / 2
    if motion.tongue > 0.2:
        out = 0.10 * motion.tongue
        cx, cy = 0.02, float(inner_low[10, 1])
        tongue = np.stack([cx + 0.105 * _CIRCLE[:, 0], cy - 0.02 + (0.02 + out) * _CIRCLE[:, 1]], 1)
        canvas.polygon(head.pixels(*tongue.T), (150, 44, 60), clip=clip)
        tongue = np.stack([cx + 0.09 * _CIRCLE[:, 0], cy - 0.02 + out * _CIRCLE[:, 1]], 1)
        canvas.polygon(head.pixels(*tongue.T), (222, 96, 112), clip=clip)
        groove = np.stack([np.full(4, cx), np.linspace(cy - 0.05, cy + 0.4 * out, 4)], 1)
        canvas.line(head.pixels(*groove.T), (160, 50, 66), 0.014 * unit, clip=clip)
    elif motion.teeth_lower < 0.2:
        width = inner_up[-1, 0]
        tongue = np.stack([0.62 * width * _CIRCLE[:, 0], inner_low[10, 1] + 0.06 * _CIRCLE[:, 1]], 1)
        canvas.polygon(head.pixels(*tongue.T), (198, 72, 86), clip=inside)
    for share, edge in ((motion.teeth_upper, inner_up), (motion.teeth_lower, inner_low)):
        if share <= 0:
            continue
        other = inner_low if edge is inner_up else inner_up
        until = edge + (other - edge) * share
        canvas.polygon(head.pixels(*np.concatenate([edge, until[::-1]]).T), (252, 250, 244), clip=inside)
        for k in range(3, 18, 2):
            gap = np.stack([edge[k], until[k]])
            canvas.line(head.pixels(*gap.T), (176, 168, 164), 0.010 * unit, 0.8, clip=inside)
    if motion.teeth_upper > 0 and motion.teeth_lower > 0:
        canvas.line(head.pixels(*middle.T), (120, 70, 70), 0.014 * unit, clip=inside)
