"""The photos of one split: labels in memory, pixels read on request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

UNKNOWN = -1


@dataclass(frozen=True)
class PhotoContent:
    """One photo and its face, as preprocessing detected it.

    `image` (H, W, 3) uint8 RGB; `bbox` (4,) x0 y0 x1 y1, `keypoints` (5, 2), `landmarks` (68, 2), all float32 in
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

    `keys` (N, 32) uint8, sha256 of the `PhotoContent`; `person` (N,) int32, index into `people`, or UNKNOWN; `prompt`
    (N,) int32, index into the distinct `prompts`; `expression` and `pose` (N,) int8, indices into
    face_prompts.EXPRESSIONS and POSES, or UNKNOWN. `content(positions)` yields the photos at `positions`, which must be
    ascending.
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
        """Return the sha256 (hex) of everything in these photos on which a training can depend."""
        total = hashlib.sha256()
        for array in (self.keys, self.person, self.prompt, self.expression, self.pose):
            total.update(f"{array.dtype} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).tobytes())
        for words in (self.people, self.prompts):
            for word in words:
                total.update(f"{len(word)}:{word}".encode())
        return total.hexdigest()

    def by_person(self) -> list[np.ndarray]:
        """Return the positions of each person's photos, in the order of `people`; unknown people are left out."""
        order = np.argsort(self.person, kind="stable")
        edges = np.searchsorted(self.person[order], np.arange(len(self.people) + 1))
        return [order[start:end] for start, end in pairwise(edges)]
