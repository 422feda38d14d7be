"""The long form: identity against prompt while λ, τ or the guidance change, one at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.intervals import Interval
from pipelines.evaluation.plan import Order, TokenTable, order_of, shared_cells
from pipelines.evaluation.results import Resamples, summarise
from pipelines.evaluation.scoring import Gallery, Scores, Seen, TextFeatures, score_pictures
from pipelines.evaluation.variants import MODEL

# Field of Order → the values that it takes; everything else is as the model has it.
SWEEPS: dict[str, tuple[float, ...]] = {
    "scale": (0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
    "threshold": (0.0, 0.15, 0.3, 0.45, 0.6),
    "guidance": (1.5, 3.0, 5.0, 7.5),
}
SWEPT_METRICS: tuple[str, ...] = (
    "id_similarity",
    "prompt_accuracy",
    "clip_t",
    "expression_accuracy",
    "pose_accuracy",
    "face_rate",
)


@dataclass(frozen=True)
class SweepPlan:
    """The orders of all points, and for each (parameter, value) the numbers of its orders; all answer `cells`."""

    orders: tuple[Order, ...]
    points: dict[tuple[str, float], list[int]]
    cells: list[int]


def plan_sweeps(questions: EvaluationSet, tokens: TokenTable, looks: int) -> SweepPlan:
    """Lay out the pictures of every point: about `looks` looks of every person, the same noise everywhere."""
    cells = shared_cells(questions, looks)
    orders: list[Order] = []
    points: dict[tuple[str, float], list[int]] = {}
    for name, values in SWEEPS.items():
        for value in values:
            points[name, value] = list(range(len(orders), len(orders) + len(cells)))
            change: dict[str, Any] = {name: value}
            orders += [replace(order_of(questions, tokens, MODEL, cell), **change) for cell in cells]
    return SweepPlan(tuple(orders), points, cells)


def score_sweeps(
    questions: EvaluationSet, plan: SweepPlan, seen: Seen, gallery: Gallery, texts: TextFeatures
) -> dict[tuple[str, float], Scores]:
    """Score every point; `seen` is in the order of `plan.orders`."""
    return {
        point: score_pictures(questions, plan.cells, seen.rows(numbers), gallery, texts)
        for point, numbers in plan.points.items()
    }


def summarise_sweeps(
    scores: dict[tuple[str, float], Scores], resamples: Resamples
) -> dict[tuple[str, float], dict[str, Interval]]:
    """Return SWEPT_METRICS of every point with their intervals."""
    points = {point: f"{point[0]}={point[1]:g}" for point in scores}
    table = summarise({points[point]: found for point, found in scores.items()}, {}, resamples)
    return {
        point: {metric: one for metric, one in table[name].items() if metric in SWEPT_METRICS}
        for point, name in points.items()
    }
