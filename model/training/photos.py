"""The photos of one split as training sees them: labels in memory, pixels read when somebody asks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

UNKNOWN = -1


@dataclass(frozen=True)
class PhotoContent:
    """One photo with what preprocessing found in it.

    `image` (H, W, 3) uint8 RGB; `bbox` (4,) x0 y0 x1 y1, `keypoints` (5, 2), `landmarks` (68, 2), all float32 in its
    pixels; `embedding` (512,) float32, unit norm.
    """

    image: np.ndarray
    bbox: np.ndarray
    keypoints: np.ndarray
    landmarks: np.ndarray
    embedding: np.ndarray


@dataclass(frozen=True)
class Photos:
    """N photos of one split.

    `keys` (N, 32) uint8, sha256 of all that `PhotoContent` holds; `person` (N,) int32, the number of the photo's person
    in `people`, UNKNOWN where nobody says who it is; `prompt` (N,) int32 into `prompts`, the distinct ones;
    `expression` and `pose` (N,) int8 into face_prompts.EXPRESSIONS and POSES.
    `content(positions)` reads pixels and geometry of some photos, positions ascending, in their order.
    """

    keys: np.ndarray
    person: np.ndarray
    people: Sequence[str]
    prompt: np.ndarray
    prompts: Sequence[str]
    expression: np.ndarray
    pose: np.ndarray
    content: Callable[[np.ndarray], Iterator[PhotoContent]]

    def __len__(self) -> int:
        return len(self.keys)

    def digest(self) -> str:
        """Return the sha256 (hex) of everything a training can depend on."""
        total = hashlib.sha256()
        for array in (self.keys, self.person, self.prompt, self.expression, self.pose):
            total.update(f"{array.dtype} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).tobytes())
        for words in (self.people, self.prompts):
            for word in words:
                total.update(f"{len(word)}:{word}".encode())
        return total.hexdigest()

    def by_person(self) -> list[np.ndarray]:
        """Return the positions of each person's photos, in the order of `people`; unknown photos belong to nobody."""
        order = np.argsort(self.person, kind="stable")
        edges = np.searchsorted(self.person[order], np.arange(len(self.people) + 1))
        return [order[start:end] for start, end in pairwise(edges)]
