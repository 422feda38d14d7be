"""Compute the 68 iBUG landmarks, five key points and the face box of a drawn head."""

from __future__ import annotations

import numpy as np

from pipelines.data.synthetic.camera import Array
from pipelines.data.synthetic.head import NOSE_ROOT, Head
from pipelines.data.synthetic.lines import EyeShape, Mouth, brow

_JAW_HEIGHTS = np.array([0.06, 0.21, 0.36, 0.50, 0.63, 0.75, 0.86, 0.95])


def landmarks68(head: Head) -> Array:
    """Return the landmarks (68, 2) in pixels.

    0-16 jaw from the picture's left to its right (on a turned head along the visible contour), 17-26 brows,
    27-35 nose, 36-47 eyes, 48-67 mouth.
    """
    person, motion = head.person, head.motion
    points: list[Array] = [_jaw(head)]
    along = np.linspace(0, 1, 5)
    for side in (-1, 1):
        line = head.pixels(*brow(person, motion, side, along)[0].T)
        points.append(line[::-1] if side < 0 else line)
    base = head.nose_base
    points.append(head.pixels(np.zeros(4), np.linspace(NOSE_ROOT, base - 0.05, 4)))
    wing = nose_half_width(head)
    points.append(
        head.pixels(wing * np.array([-1, -0.5, 0, 0.5, 1]), base + np.array([-0.015, 0.01, 0.02, 0.01, -0.015]))
    )
    for side in (-1, 1):
        eye = EyeShape.of(person, motion, side)
        upper, lower = eye.lid(np.array([-1, -0.36, 0.36, 1]), True), eye.lid(np.array([0.36, -0.36]), False)
        points.append(head.pixels(*np.concatenate([upper, lower]).T))
    mouth = Mouth(person, motion)
    thirds = np.array([-2, -1, 0, 1, 2]) / 3
    outline = [
        mouth.outer(np.array([-1.0]), True), mouth.outer(thirds, True), mouth.outer(np.array([1.0]), True),
        mouth.outer(thirds[::-1], False),
        mouth.inner(np.array([-0.86, -0.4, 0, 0.4, 0.86]), True), mouth.inner(np.array([0.4, 0, -0.4]), False),
    ]  # fmt: skip
    points.append(head.pixels(*np.concatenate(outline).T))
    return np.concatenate(points).astype(np.float32)


def nose_half_width(head: Head) -> float:
    """Return the half width of the wings of the nose."""
    return 0.168 * head.person.nose_width * (1 + 0.12 * head.motion.nose_wrinkle)


def _jaw(head: Head) -> Array:
    heights = _JAW_HEIGHTS
    sides = []
    for side in (-1, 1):
        # The edge of the cheek in front of the ear, or the visible contour where the cheek is turned away.
        half = head.section(heights)[0]
        sides.append(head.pixels(side * half * 0.995, heights))
    chin = head.pixels(np.zeros(1), np.array([1.0]))
    return np.concatenate([sides[0], chin, sides[1][::-1]])


def keypoints5(landmarks: Array) -> Array:
    """Return eye centres (picture left, right), nose tip and mouth corners (left, right): (5, 2)."""
    return np.stack(
        [landmarks[36:42].mean(0), landmarks[42:48].mean(0), landmarks[30], landmarks[48], landmarks[54]]
    ).astype(np.float32)


def face_box(head: Head, landmarks: Array) -> Array:
    """Return x0, y0, x1, y1 (4,) of the face from forehead to chin, as tight as the box of a face detector."""
    half = float(head.section(np.array(-0.5))[0])
    forehead = head.pixels(half * np.linspace(-0.8, 0.8, 5), np.full(5, -0.52))
    points = np.concatenate([landmarks, forehead])
    return np.concatenate([points.min(0), points.max(0)]).astype(np.float32)
