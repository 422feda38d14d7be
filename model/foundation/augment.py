"""Augmentation of photos for the face networks: shrinking, blur, compression, light, noise.

The networks read drawn photos of many sizes and generated pictures, which are blurrier than drawn ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from model.foundation.people import Array, People


def resampled(image: Array, side: int) -> Array:
    """Return `image` (H, W, 3), resized to `side` pixels, as its longer side, and back."""
    height, width = image.shape[:2]
    share = side / max(height, width)
    small = cv2.resize(image, (round(width * share), round(height * share)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def degraded(
    image: Array, rng: np.random.Generator, *, shrink: float = 0.5, sides: tuple[int, ...] = (64, 64, 48)
) -> Array:
    """Return an augmented copy of `image` (S, S, 3) uint8 RGB; `shrink`: chance of `resampled` to one of `sides`."""
    chance = rng.random(5)
    if chance[0] < shrink:
        image = resampled(image, int(rng.choice(sides)))
    if chance[1] < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.3)))
    if chance[2] < 0.25:
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 96))])
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    if chance[3] < 0.7:
        gain = rng.uniform(0.8, 1.2) * rng.uniform(0.94, 1.06, 3)
        table = np.arange(256)[:, None] * gain + rng.uniform(-18, 18)
        image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[:, None])
    if chance[4] < 0.2:
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(2, 9))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image


def jittered(keypoints: Array, rng: np.random.Generator) -> Array:
    """Return key points (5, 2) with noise as of a detector: σ up to 12 % of the distance between eyes and mouth."""
    span = float(np.linalg.norm(keypoints[:2].mean(0) - keypoints[3:].mean(0)))
    return keypoints + rng.standard_normal((5, 2)) * 0.12 * span * rng.random()


def held_out(people: People, cut: Callable[[Array, int], Array]) -> Iterator[tuple[str, Array]]:
    """Yield ("128", `cut(photo, row)` of all held-out photos) and ("64", the same of photos `resampled` to 64 px)."""
    rows = people.held_out
    yield "128", np.stack([cut(people.photos[row], row) for row in rows])
    yield "64", np.stack([cut(resampled(people.photos[row], 64), row) for row in rows])


def normalised(images: Array, mean: float = 127.5, scale: float = 127.5) -> Tensor:
    """Return (B, S, S, 3) uint8 as (B, 3, S, S) float32, (x − mean) / scale, channels last in memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    return ((tensor - mean) / scale).contiguous(memory_format=torch.channels_last)
