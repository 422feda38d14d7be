"""Metrics of whole pictures: distance to real photos, spread over seeds, gate inside the face."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.intervals import Statistic

# Pairs of pictures at once.
_ROWS, _COLUMNS = 256, 4096


def kid(
    drawn: np.ndarray, drawn_person: np.ndarray, real: np.ndarray, real_person: np.ndarray, people: int
) -> Statistic:
    """Return the kernel distance between drawn pictures and real photos as a statistic over people.

    It is the unbiased squared maximum mean discrepancy with a cubic kernel (Binkowski et al. 2018) of unit-norm
    features `drawn` (N, d) and `real` (M, d), each with its person (N,), (M,): about 0 where both come from the same
    distribution. Pairs of a picture with itself are left out. A person drawn twice into a resample is still one: pairs
    of one person's pictures count once for each time, and pairs of two people's keep their share of all pairs.
    """
    people_of = np.eye(people)

    def blocks(a: np.ndarray, b: np.ndarray, person_a: np.ndarray, person_b: np.ndarray, same: bool) -> np.ndarray:
        total = np.zeros((people, people))
        for start in range(0, len(a), _ROWS):  # so that memory does not grow with the pictures
            some = slice(start, start + _ROWS)
            for first in range(0, len(b), _COLUMNS):
                others = slice(first, first + _COLUMNS)
                # KID uses (x·y / d + 1)³: its features have a mean square of about 1, unit-norm features of 1 / d.
                kernel = (a[some].astype(float) @ b[others].astype(float).T + 1.0) ** 3
                if same:
                    kernel[np.arange(len(a))[some, None] == np.arange(len(b))[others]] = 0.0
                total += people_of[person_a[some]].T @ kernel @ people_of[person_b[others]]
        return total

    def pair_counts(person_a: np.ndarray, person_b: np.ndarray, same: bool) -> np.ndarray:
        count_a, count_b = (np.bincount(one, minlength=people).astype(float) for one in (person_a, person_b))
        counts = np.outer(count_a, count_b)
        return counts - np.diag(count_a) if same else counts

    sums = [
        (blocks(drawn, drawn, drawn_person, drawn_person, True), pair_counts(drawn_person, drawn_person, True)),
        (blocks(real, real, real_person, real_person, True), pair_counts(real_person, real_person, True)),
        (blocks(drawn, real, drawn_person, real_person, False), pair_counts(drawn_person, real_person, False)),
    ]

    def statistic(weights: np.ndarray) -> np.ndarray:
        size = weights.sum(1)
        # Pairs of two people: so many there are among different people, and so many among those of the resample.
        share = size * (size - 1) / np.maximum(size**2 - (weights**2).sum(1), 1e-12)

        def over_pairs(table: np.ndarray) -> np.ndarray:
            own = np.diag(table)
            return weights @ own + share * ((weights @ (table - np.diag(own))) * weights).sum(1)

        terms = []
        for total, count in sums:
            pairs = over_pairs(count)
            terms.append(np.where(pairs > 0, over_pairs(total) / np.maximum(pairs, 1e-12), np.nan))
        return terms[0] + terms[1] - 2 * terms[2]

    return statistic


def diversity(features: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return each picture's mean distance (1 − cosine) to the others of its group; NaN in a group of one.

    `features` (N, d) unit norm; pictures of a `group` (N,) int differ only in the noise.
    """
    values = np.full(len(features), np.nan)
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        if len(rows) > 1:
            cosines = features[rows] @ features[rows].T
            values[rows] = 1.0 - (cosines.sum(1) - np.diag(cosines)) / (len(rows) - 1)
    return values


def share_in_box(gate: np.ndarray, box: np.ndarray) -> float:
    """Return the share of a gate map's mass (h, w, values ≥ 0) inside `box` (x0, y0, x1, y1 in [0, 1]).

    A partly covered cell counts in proportion; 0 where the gate is closed everywhere.
    """

    def cover(cells: int, low: float, high: float) -> np.ndarray:
        edges = np.arange(cells + 1) / cells
        return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None) * cells

    x0, y0, x1, y1 = (float(edge) for edge in box)
    inside = cover(gate.shape[0], y0, y1)[:, None] * cover(gate.shape[1], x0, x1)
    total = float(gate.sum())
    return float((gate * inside).sum()) / total if total > 0 else 0.0
