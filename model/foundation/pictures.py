"""Pictures of the foundation's people: smaller copies, batches of one size, tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.foundation.people import Array, Groups, People


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size to train on: `photos` (N, H, W, 3) uint8, face `boxes` (N, P, 4) in 0 … 1 of the picture.

    `rows` (R,) are those of training people; `face_prompts` has one for each person of a picture; `name` is the prefix
    of files that are made of these pictures.
    """

    name: str
    photos: Array
    boxes: Array
    rows: Array
    prompts: tuple[str, ...]
    face_prompts: tuple[tuple[str, ...], ...]


Chosen = Sequence[tuple[Pictures, Array]]
"""Pictures of one size with their rows in a batch."""


def shrunk(photos: Array, file: Path, share: float) -> Array:
    """Return photos (N, H, W, 3) uint8 at `share` of their size, cached in `file`; themselves at their own size."""
    import cv2

    height, width = (round(side * share) for side in photos.shape[1:3])
    if (height, width) == photos.shape[1:3]:
        return photos

    def make() -> Array:
        return np.stack(
            [cv2.resize(np.asarray(photo), (width, height), interpolation=cv2.INTER_AREA) for photo in photos]
        )

    return cached(file, len(photos), make)


def singles(people: People, folder: Path, size: int) -> Array:
    """Return all photos of single people at `size` pixels, (N, S, S, 3) uint8, cached in `folder`."""
    return shrunk(people.photos, folder / f"photos_{size}.npy", size / people.photos.shape[1])


def buckets(people: People, folder: Path, size: int) -> list[list[Pictures]]:
    """Return the training pictures by size: squares of `size` pixels first, photos of single people first among them.

    Sizes of the others follow in proportion. Raises ValueError without pictures of several people.
    """
    share = size / people.photos.shape[1]
    boxes = np.asarray(people.boxes)[:, None] / people.photos.shape[1]
    faces = tuple((prompt,) for prompt in people.face_prompts)
    single = Pictures("", singles(people, folder, size), boxes, people.train, people.prompts, faces)
    made = {single.photos.shape[1:3]: [single]}
    for groups in people.groups:
        rows = people.train_rows(groups)
        if len(rows):
            pictures = _group_pictures(groups, rows, folder, share, alone=len(people.groups) == 1)
            made.setdefault(pictures.photos.shape[1:3], []).append(pictures)
    if not any(len(people.train_rows(groups)) for groups in people.groups):
        raise ValueError(
            "no pictures of two people to train on; `dynamicid foundation draw` draws them for --people 4 or more with "
            "--groups above 0"
        )
    return list(made.values())


def _group_pictures(groups: Groups, rows: Array, folder: Path, share: float, *, alone: bool) -> Pictures:
    height, width = groups.photos.shape[1:3]
    name = "group_" if alone else f"group_{width}x{height}_"
    photos = shrunk(groups.photos, folder / f"{name}photos_{round(height * share)}.npy", share)
    boxes = np.asarray(groups.boxes) / np.array([width, height, width, height], np.float32)
    return Pictures(name, photos, boxes, rows, groups.prompts, groups.face_prompts)


def choose(made: Sequence[Sequence[Pictures]], rng: np.random.Generator, batch: int, single_share: float) -> Chosen:
    """Choose a size of `buckets`, all with the same chance, and `batch` rows of training pictures of it.

    Where there are both, about `single_share` of them, but never all, show a single person that fills the picture.
    """
    kinds = made[int(rng.integers(len(made)))] if len(made) > 1 else made[0]
    if len(kinds) == 1:
        return [(kinds[0], rng.choice(kinds[0].rows, batch))]
    others = max(1, round(batch * (1 - single_share)))
    return [(kind, rng.choice(kind.rows, count)) for kind, count in zip(kinds, (batch - others, others), strict=True)]


def boxes_of(chosen: Chosen) -> Array:
    """Return the face boxes (B, P, 4) of a batch, 0 where a picture has fewer people."""
    most = max(pictures.boxes.shape[1] for pictures, _ in chosen)
    parts = [np.asarray(pictures.boxes[rows]) for pictures, rows in chosen]
    return np.concatenate([np.pad(part, ((0, 0), (0, most - part.shape[1]), (0, 0))) for part in parts])


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


def as_tensor(images: Array) -> Tensor:
    """Return (B, H, W, 3) uint8 as (B, 3, H, W) float32 in [−1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def face_weight(boxes: Array, size: tuple[int, int], weight: float, grow: float = 0.0) -> Tensor:
    """Return (B, 1, *size): `weight` where a face box contains the cell's centre, else 1; `size` is height and width.

    `boxes` (B, P, 4) are x0 y0 x1 y1 in 0 … 1 of the picture. They are enlarged on all sides by `grow` of their own.
    """
    boxes = np.asarray(boxes, np.float32)
    margin = grow * (boxes[..., 2:] - boxes[..., :2])
    boxes = np.concatenate([boxes[..., :2] - margin, boxes[..., 2:] + margin], -1)
    y, x = ((np.arange(cells, dtype=np.float32) + 0.5) / cells for cells in size)
    x0, y0, x1, y1 = (boxes[..., edge, None, None] for edge in range(4))
    inside = ((x[None] >= x0) & (x[None] <= x1) & (y[:, None] >= y0) & (y[:, None] <= y1)).any(1)
    return torch.from_numpy(np.where(inside, np.float32(weight), np.float32(1)))[:, None]
