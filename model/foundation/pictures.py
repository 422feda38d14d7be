"""Pictures of the foundation's people as batches of tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.foundation.people import Array, People


def shrunk(people: People, folder: Path, size: int) -> tuple[Array, Array]:
    """Return all photos and all two-person photos at `size` pixels, (N, S, S, 3) uint8, cached in `folder`."""
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
    """Return (B, S, S, 3) uint8 as (B, 3, S, S) float32 in [−1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def face_weight(boxes: Array, size: int, weight: float) -> Tensor:
    """Return (B, 1, size, size): `weight` where a face box contains the cell's centre, else 1.

    `boxes` is (B, 4) or (B, P, 4), x0 y0 x1 y1 in 0 … 1 of the picture.
    """
    boxes = np.asarray(boxes, np.float32)
    boxes = boxes[:, None] if boxes.ndim == 2 else boxes
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    y, x = centres[:, None], centres[None, :]
    x0, y0, x1, y1 = (boxes[..., edge, None, None] for edge in range(4))
    inside = ((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)).any(1)
    return torch.from_numpy(np.where(inside, np.float32(weight), np.float32(1)))[:, None]
