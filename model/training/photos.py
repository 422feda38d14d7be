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


class Companions:
    """The other photos of everybody in a split; a photo of nobody known, or of somebody with one photo, has none."""

    def __init__(self, photos: Photos) -> None:
        person = photos.person
        self._order = np.argsort(person, kind="stable")
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(person))
        counts = np.bincount(person[person != UNKNOWN], minlength=len(photos.people))
        unknown = len(person) - counts.sum()
        # UNKNOWN is sorted first, and is the last element of both.
        self._first = np.append(unknown + np.cumsum(counts) - counts, 0)
        self._count = np.append(counts, 0)
        self._person = person

    def exchanged(self, rows: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
        """Return `rows` (B,), where each is, with chance `share`, any other photo of its person."""
        chosen, step = rng.random(len(rows)) < share, rng.random(len(rows))
        count, first = self._count[self._person[rows]], self._first[self._person[rows]]
        chosen &= count > 1
        further = 1 + (step * (count - 1)).astype(np.int64)
        others = first + (self._place[rows] - first + further) % np.maximum(count, 1)
        return np.where(chosen, self._order[np.where(chosen, others, 0)], rows)
