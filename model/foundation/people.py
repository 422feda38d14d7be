"""The training data of the foundation: pictures of procedural people, drawn once, kept as memory-mapped arrays.

Drawing (`model/foundation/render.py`) is slower than training, so it happens once. The last people of the set are held
out and never trained on. The folder has `photos.npy` (N, H, W, 3) and the other arrays of `People`, person by person;
the same with a prefix for each set of pictures of several people; `prompts.json`; `settings.json`; `finished.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HELD_OUT_SHARE = 0.08
SINGLE = "person"
"""The name of the set of pictures of single people; its files have no prefix."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RenderedPhoto:
    """A drawn picture with its labels.

    `image` (H, W, 3) uint8 RGB; for each of P faces, in pixels: `landmarks` (P, 68, 2), `keypoints` (P, 5, 2), `boxes`
    (P, 4) x0 y0 x1 y1; `angles` (P, 3) yaw pitch roll in degrees; `face_prompts`.
    """

    image: Array
    landmarks: Array
    keypoints: Array
    boxes: Array
    angles: Array
    prompt: str
    face_prompts: tuple[str, ...]


@dataclass(frozen=True)
class PhotoSpec:
    """A picture to draw: people by number, with expression and pose of each, as named in `face_prompts`.

    With `canvas`, its width and height in pixels, people are placed side by side with heads of any size and named by
    place. Without it, the picture is a square of `size` pixels of one head or two that fill it.
    """

    seed: int
    photo: int
    people: tuple[int, ...]
    expressions: tuple[str, ...]
    poses: tuple[str, ...]
    size: int
    canvas: tuple[int, int] | None = None


Draw = Callable[[PhotoSpec], RenderedPhoto]


FACE_ARRAYS: dict[str, tuple[tuple[int, ...], str]] = {
    "landmarks": ((68, 2), "float32"),
    "keypoints": ((5, 2), "float32"),
    "boxes": ((4,), "float32"),
    "angles": ((3,), "float32"),
    "identity": ((), "int32"),
    "expression": ((), "int8"),
    "pose": ((), "int8"),
}


@dataclass(frozen=True)
class Groups:
    """Pictures of one size with up to P people. Arrays are those of `People`, with an axis of P after the first.

    People come from the picture's left to its right; behind the last one, `identity` is −1 and the others are 0.
    `face_prompts` has one face prompt for each person of a picture.
    """

    photos: Array
    landmarks: Array
    keypoints: Array
    boxes: Array
    angles: Array
    identity: Array
    expression: Array
    pose: Array
    prompts: tuple[str, ...]
    face_prompts: tuple[tuple[str, ...], ...]

    @cached_property
    def count(self) -> Array:
        """The number of people in each picture (N,)."""
        return (np.asarray(self.identity) >= 0).sum(1)


@dataclass(frozen=True)
class People:
    """A drawn set. Arrays are memory-mapped and read-only; row i of each belongs to photo i.

    `photos` (N, S, S, 3) uint8 RGB; `landmarks` (N, 68, 2), `keypoints` (N, 5, 2), `boxes` (N, 4) x0 y0 x1 y1 in
    pixels; `angles` (N, 3) yaw pitch roll; `identity` (N,); `expression` and `pose` (N,) indices into
    `face_prompts`. `groups` are the pictures of several people, one set for each size.
    """

    photos: Array
    landmarks: Array
    keypoints: Array
    boxes: Array
    angles: Array
    identity: Array
    expression: Array
    pose: Array
    prompts: tuple[str, ...]
    face_prompts: tuple[str, ...]
    groups: tuple[Groups, ...] = ()

    @cached_property
    def first_held_out(self) -> int:
        """The number of the first held-out person."""
        return first_held_out(int(self.identity.max()) + 1)

    @cached_property
    def train(self) -> Array:
        """Rows (int64) of the photos of training people."""
        return np.flatnonzero(np.asarray(self.identity) < self.first_held_out)

    @cached_property
    def held_out(self) -> Array:
        """Rows (int64) of the photos of held-out people."""
        return np.flatnonzero(np.asarray(self.identity) >= self.first_held_out)

    def train_rows(self, groups: Groups) -> Array:
        """Return the rows (int64) of the pictures of `groups` that show only training people."""
        return np.flatnonzero((np.asarray(groups.identity) < self.first_held_out).all(1))


def first_held_out(people: int) -> int:
    """Return the number of the first held-out of `people`."""
    return people - max(round(people * HELD_OUT_SHARE), 1)


def file_of(folder: Path, kind: str, array: str) -> Path:
    """Return the file of an array of the set `kind` of pictures."""
    return folder / (f"{array}.npy" if kind == SINGLE else f"{kind}_{array}.npy")


def open_people(folder: Path) -> People:
    """Open a set finished by `render_people`; raise ValueError where it is missing or unfinished."""
    if not (folder / "prompts.json").is_file():
        raise ValueError(f"{folder}: no finished set of people there; draw it with `dynamicid foundation draw`")
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    kinds = [name.removesuffix("_face_prompts") for name in prompts if name.endswith("_face_prompts")]
    groups = [
        Groups(
            **_arrays(folder, kind),
            prompts=tuple(prompts[f"{kind}_prompts"]),
            face_prompts=tuple(tuple(faces) for faces in prompts[f"{kind}_face_prompts"]),
        )
        for kind in kinds
        if file_of(folder, kind, "photos").is_file()
    ]
    return People(
        **_arrays(folder, SINGLE),
        prompts=tuple(prompts["prompts"]),
        face_prompts=tuple(prompts["face_prompts"]),
        groups=tuple(groups),
    )


def _arrays(folder: Path, kind: str) -> dict[str, Array]:
    return {name: np.load(file_of(folder, kind, name), mmap_mode="r") for name in ("photos", *FACE_ARRAYS)}
