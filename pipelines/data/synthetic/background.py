"""Draw the background: a named colour or a simple place."""

from __future__ import annotations

import cv2
import numpy as np

from pipelines.data.synthetic.camera import Array
from pipelines.data.synthetic.canvas import Canvas, circle
from pipelines.data.synthetic.scene import COLOURS, Scene


def draw_background(canvas: Canvas, scene: Scene) -> None:
    """Fill the picture with the scene's background."""
    if scene.place:
        _PLACES[scene.place](canvas, np.random.default_rng(scene.texture_seed))
        return
    colour = np.array(COLOURS[scene.background_colour], np.float32)
    shape = (canvas.height, canvas.width)
    down = np.linspace(0, 1, canvas.height, dtype=np.float32)[:, None]
    if scene.background_kind == "gradient":
        weight = np.broadcast_to(1.08 - 0.30 * down, shape)
    elif scene.background_kind == "spot":
        across = np.linspace(0, 1, canvas.width, dtype=np.float32)[None]
        weight = 1.10 - 0.55 * ((down - 0.42) ** 2 + (across - 0.5) ** 2)
    else:
        weight = np.full(shape, 1.0, np.float32)
    canvas.image[:] = np.clip(colour * weight[..., None], 0, 255).astype(np.uint8)


def _sky(canvas: Canvas, top: tuple[int, int, int], bottom: tuple[int, int, int]) -> None:
    t = np.linspace(0, 1, canvas.height)[:, None]
    canvas.image[:] = (np.array(top) * (1 - t) + np.array(bottom) * t).astype(np.uint8)[:, None]


def _box(canvas: Canvas, box: tuple[float, float, float, float], colour: tuple[float, float, float]) -> None:
    x0, y0, x1, y1 = box
    points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32) * canvas.extent
    canvas.polygon(points, colour)


def _disc(canvas: Canvas, x: float, y: float, radius: float, colour: tuple[float, float, float]) -> None:
    round_ = circle(24) * (canvas.side / canvas.extent)
    canvas.polygon(canvas.extent * (np.array([x, y]) + radius * round_), colour)


def _hills(canvas: Canvas, knots: Array, colour: tuple[float, float, float]) -> None:
    x = np.linspace(0, 1, len(knots))
    points = np.concatenate([np.stack([x, knots], 1), [[1, 1], [0, 1]]])
    canvas.polygon((points * canvas.extent).astype(np.float32), colour)


def _beach(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (120, 196, 246), (206, 234, 250))
    _disc(canvas, rng.uniform(0.05, 0.2), 0.15, 0.08, (255, 240, 150))
    _box(canvas, (0, 0.52, 1, 0.72), (40, 140, 190))
    _box(canvas, (0, 0.60, 1, 0.62), (90, 180, 214))
    _box(canvas, (0, 0.70, 1, 1), (236, 212, 150))


def _park(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (150, 208, 248), (220, 240, 250))
    _box(canvas, (0, 0.62, 1, 1), (104, 176, 72))
    for place in (0.06, 0.24, 0.78, 0.95):
        x, y = place + rng.uniform(-0.04, 0.04), rng.uniform(0.28, 0.42)
        _box(canvas, (x - 0.018, y, x + 0.018, 0.68), (104, 70, 44))
        for dx, dy in ((-0.06, 0.02), (0.06, 0.02), (0, -0.06)):
            _disc(canvas, x + dx, y + dy, 0.09, (52, 132, 60))


def _city(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (160, 190, 220), (226, 222, 214))
    for k in range(8):
        x, top = k / 8, rng.uniform(0.12, 0.5)
        level = float(rng.uniform(80, 130))
        _box(canvas, (x, top, x + 0.12, 1), (level, level * 1.03, level * 1.12))
        for row in range(5):
            for column in range(2):
                if rng.random() < 0.7:
                    left, low = x + 0.02 + 0.05 * column, top + 0.04 + 0.09 * row
                    _box(canvas, (left, low, left + 0.03, low + 0.045), (250, 224, 140))


def _mountains(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (110, 170, 230), (224, 236, 246))
    for base, colour in ((0.34, (146, 160, 186)), (0.5, (98, 118, 142)), (0.7, (70, 104, 78))):
        _hills(canvas, base + 0.16 * rng.uniform(-1, 1, 9) * np.tile([1, -1, 1], 3), colour)


def _library(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.image[:] = (84, 54, 34)
    spines = [(164, 44, 40), (44, 84, 140), (210, 176, 90), (60, 120, 80), (120, 70, 130), (220, 210, 190)]
    for shelf in range(5):
        top, x = 0.02 + 0.2 * shelf, 0.0
        while x < 1:
            width, height = rng.uniform(0.03, 0.06), rng.uniform(0.13, 0.165)
            _box(
                canvas, (x, top + 0.17 - height, x + width - 0.006, top + 0.17), spines[int(rng.integers(len(spines)))]
            )
            x += width


def _night(canvas: Canvas, rng: np.random.Generator) -> None:
    _sky(canvas, (14, 18, 48), (44, 40, 92))
    for x, y, r in rng.uniform([0, 0, 0.004], [1, 0.8, 0.011], (40, 3)):
        _disc(canvas, x, y, r, (250, 248, 220))
    _disc(canvas, 0.14, 0.16, 0.075, (246, 240, 206))
    cv2.GaussianBlur(canvas.image, (0, 0), 0.002 * canvas.side, dst=canvas.image)


_PLACES = {
    "beach": _beach, "park": _park, "city": _city, "mountains": _mountains, "library": _library, "night": _night,
}  # fmt: skip
