"""Pictures of the foundation's people as batches of tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.foundation.people import Array, People


def shrunk(people: People, folder: Path, size: int) -> tuple[Array, Array]:
    """Return all photos and all two-person photos at `size` pixels, (N, S, S, 3) uint8, cached in `folder`.

    Without two-person photos the second array is empty.
    """
    singles = _shrunk(people.photos, folder / f"photos_{size}.npy", size)
    if not people.group:
        return singles, np.empty((0, size, size, 3), np.uint8)
    return singles, _shrunk(people.group["photos"], folder / f"group_photos_{size}.npy", size)


def require_pairs(people: People) -> None:
    """Raise ValueError without pictures of two people to train on."""
    if not len(people.group_train):
        raise ValueError(
            "no pictures of two people to train on; `dynamicid foundation draw` draws them for --people 4 or more with "
            "--groups above 0"
        )


def cached(file: Path, rows: int, make: Callable[[], Array]) -> Array:
    """Return the array in `file` (.npy), mapped; made, and written whole, where the file lacks any of its `rows`.

    A file that is cut, as a full disk leaves it, or of other pictures is made again.
    """
    if file.is_file():
        try:
            found: Array = np.load(file, mmap_mode="r")
            if len(found) == rows:
                return found
            problem = f"{len(found)} rows, expected {rows}"
        except (ValueError, EOFError, OSError) as error:
            problem = " ".join(str(error).split())
        print(f"{file}: not the array of these pictures ({problem}); it is made again", file=sys.stderr)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    try:
        with part.open("wb") as handle:
            np.save(handle, make())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return np.load(file, mmap_mode="r")


def _shrunk(photos: Array, file: Path, size: int) -> Array:
    import cv2

    def make() -> Array:
        return np.stack([cv2.resize(np.asarray(photo), (size, size), interpolation=cv2.INTER_AREA) for photo in photos])

    return cached(file, len(photos), make)


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
