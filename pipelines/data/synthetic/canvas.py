"""Draw polygons with sub-pixel corners, soft edges and transparency, and shaded meshes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.data.synthetic.camera import Array, Camera

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Colour = Sequence[float] | npt.NDArray[np.floating]

_SHIFT = 4


def fixed(points: Array) -> npt.NDArray[np.int32]:
    """Return pixel coordinates as the fixed-point integers of OpenCV's drawing functions."""
    return np.round((np.asarray(points) - 0.5) * (1 << _SHIFT)).astype(np.int32)


def ribbon(points: Array, widths: Array | float) -> Array:
    """Return the outline (2 N, 2) of a stroke along points (N, 2) with full widths (N,) in pixels."""
    points = np.asarray(points, np.float32)
    tangent = np.gradient(points, axis=0)
    length = np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-6)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / length
    half = (np.broadcast_to(np.asarray(widths, np.float32), (len(points),)) / 2)[:, None]
    return np.concatenate([points + normal * half, (points - normal * half)[::-1]]).astype(np.float32)


def circle(count: int) -> Array:
    """Return points (count, 2) around a circle of radius 1."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(t), np.sin(t)], 1)


class Canvas:
    """An RGB picture of `width` × `height` pixels, as `extent` (2,) float32; `height` is `width` by default."""

    def __init__(self, width: int, height: int | None = None) -> None:
        self.width, self.height = width, height or width
        self.extent = np.array([self.width, self.height], np.float32)
        self.image: Image = np.zeros((self.height, self.width, 3), np.uint8)

    @property
    def side(self) -> int:
        """The shorter side in pixels."""
        return min(self.width, self.height)

    def polygon(
        self, points: Array, colour: Colour, alpha: float = 1.0, *, soft: float = 0.0, clip: Image | None = None
    ) -> None:
        """Fill a polygon (N, 2) with a colour.

        `alpha` is its opacity, `soft` the sigma of its blurred edge in pixels, `clip` a mask (height, width): nothing
        is drawn where it is 0, all where it is 255.
        """
        if alpha >= 1.0 and soft <= 0.0 and clip is None:
            cv2.fillPoly(self.image, [fixed(points)], tuple(float(c) for c in colour), cv2.LINE_8, _SHIFT)
            return
        window = rows, columns = self.window(points, int(np.ceil(soft * 2.5)) + 1)
        if rows.stop <= rows.start or columns.stop <= columns.start:
            return
        mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        corner = np.array([columns.start, rows.start])
        cv2.fillPoly(mask, [fixed(points - corner)], 255, cv2.LINE_8, _SHIFT)
        if soft > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), soft)
        if clip is not None:
            mask = cv2.bitwise_and(mask, clip[window])
        self.blend(window, mask, colour, alpha)

    def window(self, points: Array, pad: int) -> tuple[slice, slice]:
        """Return the rows and columns around points (N, 2), with `pad` more pixels on all sides."""
        low = np.maximum(np.floor(points.min(0)).astype(int) - pad, 0)
        high = np.minimum(np.ceil(points.max(0)).astype(int) + pad + 1, [self.width, self.height])
        return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))

    def mask(self, points: Array) -> Image:
        """Return a mask (height, width) that is 255 inside a polygon (N, 2) and 0 outside."""
        mask = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(mask, [fixed(points)], 255, cv2.LINE_8, _SHIFT)
        return mask

    def blend(self, window: tuple[slice, slice], mask: Image, colour: Colour | Image, alpha: float = 1.0) -> None:
        """Blend a colour, or a picture of the window's shape, into a window with a mask of 0 to 255."""
        part = self.image[window]
        weight = (mask.astype(np.float32) * (alpha / 255.0))[..., None]
        mixed = part + (np.asarray(colour, np.float32) - part) * weight
        self.image[window] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)

    def line(self, points: Array, colour: Colour, widths: Array | float, alpha: float = 1.0, **edge: Any) -> None:
        """Draw a stroke along points (N, 2) with full widths (N,) in pixels; `edge`: `soft` and `clip` of `polygon`."""
        self.polygon(ribbon(points, widths), colour, alpha, **edge)


def paint_mesh(
    image: Image, points: Array, camera: Camera, colours: Image, *, facing: int = 1, keep: Mask | None = None
) -> None:
    """Paint the quads of a grid from far to near, each in one colour.

    points: (R, C, 3) head coordinates; colours: (R - 1, C - 1, channels of image) uint8; facing: 1 draws the quads
    with a visible outside (rows run down, columns to the picture's right as seen from outside), -1 those with a
    visible inside; keep: (R - 1, C - 1) mask of the quads to draw.
    """
    pixels, depth = camera.project(points)
    corners = np.stack([pixels[:-1, :-1], pixels[:-1, 1:], pixels[1:, 1:], pixels[1:, :-1]], axis=2)
    diagonal, other = corners[:, :, 2] - corners[:, :, 0], corners[:, :, 3] - corners[:, :, 1]
    area = diagonal[..., 0] * other[..., 1] - diagonal[..., 1] * other[..., 0]
    visible = area * facing > 1e-4
    if keep is not None:
        visible &= keep
    middle = depth[:-1, :-1] + depth[:-1, 1:] + depth[1:, :-1] + depth[1:, 1:]
    order = np.argsort(middle[visible], kind="stable")
    quads = fixed(corners[visible][order])
    for quad, colour in zip(quads, colours[visible][order].tolist(), strict=True):
        cv2.fillConvexPoly(image, quad, colour, cv2.LINE_8, _SHIFT)


def normals(points: Array) -> Array:
    """Return the outward unit normals (R, C, 3) of a grid whose rows run down and columns to the right."""
    down, right = np.gradient(points, axis=0), np.gradient(points, axis=1)
    normal = np.cross(right, down)
    return (normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)).astype(np.float32)


def quad_mean(values: Array) -> Array:
    """Average a grid of vertex values (R, C, ...) over its quads: (R - 1, C - 1, ...)."""
    return (values[:-1, :-1] + values[:-1, 1:] + values[1:, :-1] + values[1:, 1:]) / 4
