"""Metrics of whole pictures: distance to real photos, spread over seeds, gate inside the face."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.intervals import Statistic

_ROWS = 256


def kid(
    drawn: np.ndarray, drawn_person: np.ndarray, real: np.ndarray, real_person: np.ndarray, people: int
) -> Statistic:
    """Return the kernel distance between drawn pictures and real photos as a statistic over people.

    It is the unbiased squared maximum mean discrepancy with a cubic kernel (Binkowski et al. 2018) of unit-norm
    features `drawn` (N, d) and `real` (M, d), each with its person (N,), (M,): about 0 where both come from the same
    distribution. Pairs of a picture with itself are left out. A person drawn twice into a resample is still one: pairs
    of one person's pictures count once for each time, and pairs of two people's keep their share of all pairs.
    """
    one_drawn, one_real = np.eye(people)[drawn_person], np.eye(people)[real_person]

    def blocks(a: np.ndarray, b: np.ndarray, ones_a: np.ndarray, ones_b: np.ndarray, same: bool) -> np.ndarray:
        total = np.zeros((people, people))
        for start in range(0, len(a), _ROWS):  # so that memory does not grow with the square of the pictures
            # KID uses (x·y / d + 1)³: its features have a mean square of about 1, unit-norm features of 1 / d.
            kernel = (a[start : start + _ROWS].astype(float) @ b.astype(float).T + 1.0) ** 3
            if same:
                np.fill_diagonal(kernel[:, start:], 0.0)
            total += ones_a[start : start + _ROWS].T @ kernel @ ones_b
        return total

    def pair_counts(ones_a: np.ndarray, ones_b: np.ndarray, same: bool) -> np.ndarray:
        counts = np.outer(ones_a.sum(0), ones_b.sum(0))
        return counts - np.diag(ones_a.sum(0)) if same else counts

    sums = [
        (blocks(drawn, drawn, one_drawn, one_drawn, True), pair_counts(one_drawn, one_drawn, True)),
        (blocks(real, real, one_real, one_real, True), pair_counts(one_real, one_real, True)),
        (blocks(drawn, real, one_drawn, one_real, False), pair_counts(one_drawn, one_real, False)),
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
