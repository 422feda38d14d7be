"""Compare all pairs of faces of known people: how similar one person's are, how similar two people's.

The threshold is where a share `RATE` of the pairs of two people is at least as similar. So few are seldom seen, so it
is extrapolated from the thousandth that is most similar: above a high bound, what exceeds it is nearly exponential
(peaks over threshold: Coles 2001, chapter 4).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Among the many pairs of a pile of photos, a false one in ten thousand still joins hardly anybody (docs/log/curation).
RATE = 1e-4
_TAIL = 1e-3
# Pairs of one person that are less similar are doubted: one in fifty.
DOUBTFUL = 0.02
_BINS, _BLOCK, _RESAMPLES = 4000, 1024, 1000
EDGES = np.linspace(-1, 1, _BINS + 1)


@dataclass(frozen=True)
class Pairs:
    """Histograms of the cosines of pairs of one person and of two, between `EDGES`.

    In `by_person`, pairs of one person have weights by which every person counts once.
    """

    same: np.ndarray
    other: np.ndarray
    by_person: np.ndarray

    @property
    def typical(self) -> float:
        """The median cosine of two photos of one person."""
        return float(EDGES[np.searchsorted(np.cumsum(self.same), self.same.sum() / 2)])

    @property
    def doubtful(self) -> float:
        """The cosine that a share `DOUBTFUL` of the pairs of one person does not reach, if every person counts once."""
        return float(EDGES[np.searchsorted(np.cumsum(self.by_person), DOUBTFUL * self.by_person.sum())])

    @property
    def tail(self) -> tuple[float, float]:
        """The cosine that a thousandth of the pairs of two people reaches, and their mean excess over it."""
        above = np.cumsum(self.other[::-1])[::-1]
        start = int(np.argmax(above <= _TAIL * self.other.sum()))
        counts, centres = self.other[start:], (EDGES[start:-1] + EDGES[start + 1 :]) / 2
        return float(EDGES[start]), float((counts * (centres - EDGES[start])).sum() / max(counts.sum(), 1))

    @property
    def threshold(self) -> float:
        """The cosine that a share `RATE` of the pairs of two people reaches."""
        start, excess = self.tail
        return min(start + excess * math.log(_TAIL / RATE), 0.99)


@dataclass(frozen=True)
class Accepted:
    """Per person (P,): pairs of two photos of the person, pairs with other people's, and how many are accepted."""

    same: np.ndarray
    same_accepted: np.ndarray
    other: np.ndarray
    other_accepted: np.ndarray


def count_pairs(embeddings: np.ndarray, person: np.ndarray) -> Pairs:
    """Count the cosines of all pairs of unit-norm `embeddings` (N, D); `person` (N,) from 0 says whose they are."""
    same, other, by_person = np.zeros(_BINS, np.int64), np.zeros(_BINS, np.int64), np.zeros(_BINS)
    photos = np.bincount(person)
    weights = 2 / np.maximum(photos * (photos - 1), 1)
    for start, cosines in _blocks(embeddings):
        here = np.arange(start, start + len(cosines))
        later = np.arange(start, len(embeddings)) > here[:, None]
        one = person[here][:, None] == person[start:]
        place = np.clip(((cosines + 1) / 2 * _BINS).astype(np.int32), 0, _BINS - 1)
        same += np.bincount(place[later & one], minlength=_BINS)
        other += np.bincount(place[later & ~one], minlength=_BINS)
        whose = np.broadcast_to(person[here][:, None], place.shape)[later & one]
        by_person += np.bincount(place[later & one], weights[whose], _BINS)
    return Pairs(same, other, by_person)


def accepted(embeddings: np.ndarray, person: np.ndarray, threshold: float) -> Accepted:
    """Count each person's pairs whose cosine is at least `threshold`; arguments as `count_pairs`."""
    people = int(person.max()) + 1
    photos = np.bincount(person, minlength=people)
    same_accepted, other_accepted = np.zeros(people), np.zeros(people)
    for start, cosines in _blocks(embeddings, whole=True):
        whose = person[start : start + len(cosines)]
        near = cosines >= threshold
        one = whose[:, None] == person
        same_accepted += np.bincount(whose, (near & one).sum(1) - 1, minlength=people)
        other_accepted += np.bincount(whose, (near & ~one).sum(1), minlength=people)
    return Accepted(photos * (photos - 1), same_accepted, photos * (len(person) - photos), other_accepted)


def share(counts: np.ndarray, of: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Return Σ counts / Σ of over people (P,), and its 95 % interval by a bootstrap over people.

    Where nothing is counted, the upper end is that of the rule of three.
    """
    weights = np.random.default_rng(seed).multinomial(len(of), np.full(len(of), 1 / len(of)), _RESAMPLES)
    drawn = (weights @ counts) / np.maximum(weights @ of, 1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    if not counts.sum():
        high = 3 / max(of.sum(), 3)
    return float(counts.sum() / max(of.sum(), 1)), float(low), float(high)


def _blocks(embeddings: np.ndarray, *, whole: bool = False) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the cosines of some rows with all later ones, or with all: (first row, (B, …))."""
    for start in range(0, len(embeddings), _BLOCK):
        yield start, embeddings[start : start + _BLOCK] @ embeddings[0 if whole else start :].T
