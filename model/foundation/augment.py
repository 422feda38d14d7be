"""What happens to a photo before a face network sees it: shrinking, blur, compression, light, noise.

The networks read drawn photos of many sizes and, later, generated pictures, which are softer than drawn ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.foundation.people import People

Array = npt.NDArray[Any]


def resampled(image: Array, side: int) -> Array:
    """Return `image` (S, S, 3) after a round trip through `side` pixels."""
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)


def degraded(
    image: Array, rng: np.random.Generator, *, shrink: float = 0.5, sides: tuple[int, ...] = (64, 64, 48)
) -> Array:
    """Return a worse copy of `image` (S, S, 3) uint8 RGB; a share `shrink` goes through one of `sides` pixels."""
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
    """Return key points (5, 2) that err by up to 12 % of the distance between eyes and mouth, as a detector's do."""
    span = float(np.linalg.norm(keypoints[:2].mean(0) - keypoints[3:].mean(0)))
    return keypoints + rng.standard_normal((5, 2)) * 0.12 * span * rng.random()


def held_out(people: People, cut: Callable[[Array, int], Array]) -> Iterator[tuple[str, Array]]:
    """Yield "128" and "64" with `cut(photo, row)` of every held-out photo: as it is, and after a trip through 64 px."""
    rows = people.held_out
    yield "128", np.stack([cut(people.photos[row], row) for row in rows])
    yield "64", np.stack([cut(resampled(people.photos[row], 64), row) for row in rows])


def normalised(images: Array, mean: float = 127.5, scale: float = 127.5) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float32, (x − mean) / scale, channels last in memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    return ((tensor - mean) / scale).contiguous(memory_format=torch.channels_last)
