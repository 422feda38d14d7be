"""Pictures as a whole: distance to real photos, spread over seeds, where the gate is open."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.intervals import Statistic


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # The cubic kernel of KID on features of unit mean square, as Inception's roughly are: (x·y / d + 1)³ there.
    return (a @ b.T + 1.0) ** 3


def kid(
    drawn: np.ndarray, drawn_person: np.ndarray, real: np.ndarray, real_person: np.ndarray, people: int
) -> Statistic:
    """Return the kernel distance between drawn pictures and real photos as a statistic over people.

    The unbiased squared maximum mean discrepancy with a cubic kernel (Binkowski et al. 2018), on unit-norm
    features: `drawn` (N, d), `real` (M, d), with the person (N,), (M,) of each. About 0 where both come from the
    same distribution. A picture is never compared with itself, nor with its copy in a resample.
    """
    one_drawn, one_real = np.eye(people)[drawn_person], np.eye(people)[real_person]

    def blocks(a: np.ndarray, b: np.ndarray, ones_a: np.ndarray, ones_b: np.ndarray, same: bool) -> np.ndarray:
        kernel = _kernel(a.astype(float), b.astype(float))
        if same:
            np.fill_diagonal(kernel, 0.0)
        return ones_a.T @ kernel @ ones_b

    def pair_counts(ones_a: np.ndarray, ones_b: np.ndarray, same: bool) -> np.ndarray:
        counts = np.outer(ones_a.sum(0), ones_b.sum(0))
        return counts - np.diag(ones_a.sum(0)) if same else counts

    sums = [
        (blocks(drawn, drawn, one_drawn, one_drawn, True), pair_counts(one_drawn, one_drawn, True)),
        (blocks(real, real, one_real, one_real, True), pair_counts(one_real, one_real, True)),
        (blocks(drawn, real, one_drawn, one_real, False), pair_counts(one_drawn, one_real, False)),
    ]

    def statistic(weights: np.ndarray) -> np.ndarray:
        terms = []
        for total, count in sums:
            pairs = np.einsum("bp,pq,bq->b", weights, count, weights)
            value = np.einsum("bp,pq,bq->b", weights, total, weights) / np.maximum(pairs, 1e-12)
            terms.append(np.where(pairs > 0, value, np.nan))
        return terms[0] + terms[1] - 2 * terms[2]

    return statistic


def diversity(features: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return for each picture its mean distance (1 − cosine) to the others of its group; NaN where it is alone.

    `features` (N, d) unit norm; a `group` (N,) int holds pictures that differ in nothing but the noise.
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

    A cell that the box covers in part counts in part; 0 where the gate is closed everywhere.
    """

    def cover(cells: int, low: float, high: float) -> np.ndarray:
        edges = np.arange(cells + 1) / cells
        return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None) * cells

    inside = cover(gate.shape[0], float(box[1]), float(box[3]))[:, None] * cover(
        gate.shape[1], float(box[0]), float(box[2])
    )
    total = float(gate.sum())
    return float((gate * inside).sum()) / total if total > 0 else 0.0
