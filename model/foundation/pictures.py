"""Pictures of the foundation's people as batches of tensors."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.foundation.people import People

Array = npt.NDArray[Any]


def shrunk(people: People, folder: Path, size: int) -> tuple[Array, Array]:
    """Return all photos and all two-person photos at `size` pixels, (N, S, S, 3) uint8, made once into `folder`."""
    return _shrunk(people.photos, folder / f"photos_{size}.npy", size), _shrunk(
        people.group["photos"], folder / f"group_photos_{size}.npy", size
    )


def _shrunk(photos: Array, file: Path, size: int) -> Array:
    import cv2

    if not file.is_file():
        small = np.stack(
            [cv2.resize(np.asarray(photo), (size, size), interpolation=cv2.INTER_AREA) for photo in photos]
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".part").open("wb") as handle:
            np.save(handle, small)
        file.with_suffix(".part").replace(file)
    return np.load(file, mmap_mode="r")


def as_tensor(images: Array) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float32 in [−1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[Array, Array]:
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    return centres[:, None], centres[None, :]


def face_weight(boxes: Array, size: int, weight: float) -> Tensor:
    """Return (B, 1, size, size): `weight` where a face box covers a cell, else 1.

    `boxes` is (B, 4) or (B, P, 4), x0 y0 x1 y1 in shares of the picture.
    """
    boxes = np.asarray(boxes, np.float32)
    boxes = boxes[:, None] if boxes.ndim == 2 else boxes
    y, x = _grid(size)
    x0, y0, x1, y1 = (boxes[..., edge, None, None] for edge in range(4))
    inside = ((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)).any(1)
    return torch.from_numpy(np.where(inside, np.float32(weight), np.float32(1)))[:, None]
