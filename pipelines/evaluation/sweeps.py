"""Sweeps: identity against prompt for several values of λ, τ or guidance, one parameter at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.intervals import Interval
from pipelines.evaluation.plan import PictureSpec, TokenTable, shared_cells, spec_of
from pipelines.evaluation.results import Resamples, summarise
from pipelines.evaluation.scoring import Gallery, JudgedPictures, Scores, TextFeatures, score_pictures
from pipelines.evaluation.variants import MODEL

# Field of PictureSpec → its values; all other fields are the model's.
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
    """The specs of all points, and for each (parameter, value) the indices of its specs, one per cell of `cells`."""

    specs: tuple[PictureSpec, ...]
    points: dict[tuple[str, float], list[int]]
    cells: list[int]


def plan_sweeps(questions: EvaluationSet, tokens: TokenTable, motions: int) -> SweepPlan:
    """Plan the pictures of every point: about `motions` cells of every person, with the same noise at all points."""
    cells = shared_cells(questions, motions)
    specs: list[PictureSpec] = []
    points: dict[tuple[str, float], list[int]] = {}
    for name, values in SWEEPS.items():
        for value in values:
            points[name, value] = list(range(len(specs), len(specs) + len(cells)))
            change: dict[str, Any] = {name: value}
            specs += [replace(spec_of(questions, tokens, MODEL, cell), **change) for cell in cells]
    return SweepPlan(tuple(specs), points, cells)


def score_sweeps(
    questions: EvaluationSet, plan: SweepPlan, judged: JudgedPictures, gallery: Gallery, texts: TextFeatures
) -> dict[tuple[str, float], Scores]:
    """Score every point; `judged` is in the order of `plan.specs`."""
    return {
        point: score_pictures(questions, dict(zip(plan.cells, numbers, strict=True)), judged, gallery, texts)
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
