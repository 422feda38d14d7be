"""From scores to the numbers of `metrics.json`: means over people, differences and normalised values with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.evaluation.intervals import (
    Interval,
    NotMeasurable,
    bootstrap,
    mean_over_people,
    means_by_person,
)
from pipelines.evaluation.scoring import Scores
from pipelines.evaluation.variants import (
    CEILING,
    FLOOR,
    JUDGED_BY,
    METRICS,
    MODEL,
    PAIR_METRICS,
    SHIPPED,
    TEXT_ONLY,
    TRUE_TOKENS,
    WITHOUT_GATE,
    WITHOUT_IMR,
)

# Differences: first minus second, on the cells that both have.
COMPARED: tuple[tuple[str, str], ...] = (
    (MODEL, TEXT_ONLY),
    (MODEL, WITHOUT_GATE),
    (MODEL, WITHOUT_IMR),
    (TRUE_TOKENS, MODEL),
    (SHIPPED, MODEL),
)

Table = dict[str, dict[str, Interval]]
_SCALED_PAIRS = ("multi_id_similarity", "multi_id_min")
# The same, once the metrics of judges that cannot judge are withheld.
Measured = Interval | NotMeasurable
Shown = dict[str, dict[str, Measured]]


@dataclass(frozen=True)
class Resamples:
    """Bootstrap weights over people (B, P) and over pairs of people (B, Q)."""

    people: np.ndarray
    pairs: np.ndarray


def person_means(scores: Scores, metric: str, people: int, cells: np.ndarray | None = None) -> np.ndarray:
    """Return a metric's mean for each person (P,), over all cells of `scores` or those in `cells`."""
    values = scores.columns[metric]
    if cells is not None:
        values = np.where(np.isin(scores.cells, cells), values, np.nan)
    return means_by_person(values, scores.person, people)


def summarise(
    scores: Mapping[str, Scores], pairs: Mapping[str, Mapping[str, np.ndarray]], resamples: Resamples
) -> Table:
    """Return every metric of every variant: mean over people, or over pairs of people, with its interval.

    `pairs[variant][metric]` (Q,) has one value per picture of two people.
    """
    people = resamples.people.shape[1]
    table: Table = {}
    for variant, found in scores.items():
        table[variant] = {
            metric: bootstrap(mean_over_people(person_means(found, metric, people)), resamples.people)
            for metric in METRICS
            if metric in found.columns and not np.isnan(found.columns[metric]).all()
        }
        for metric, values in pairs.get(variant, {}).items():
            table[variant][metric] = bootstrap(mean_over_people(values), resamples.pairs)
    return table


def compare(scores: Mapping[str, Scores], pairs: Mapping[str, Mapping[str, np.ndarray]], resamples: Resamples) -> Table:
    """Return the paired differences of COMPARED, keyed `<first>_minus_<second>`.

    Metrics of one person are compared person by person on the cells of both variants, pair metrics picture by
    picture. `pairs` as in `summarise`.
    """
    people = resamples.people.shape[1]
    table: Table = {}
    for first, second in COMPARED:
        if first not in scores:
            continue
        a, b = scores[first], scores[second]
        both = np.intersect1d(a.cells, b.cells)
        differences: dict[str, Interval] = {}
        for metric in METRICS:
            if metric in PAIR_METRICS:
                if first in pairs and second in pairs:
                    gap = pairs[first][metric] - pairs[second][metric]
                    differences[metric] = bootstrap(mean_over_people(gap), resamples.pairs)
            elif metric in a.columns and metric in b.columns:
                gap = person_means(a, metric, people, both) - person_means(b, metric, people, both)
                if not np.isnan(gap).all():
                    differences[metric] = bootstrap(mean_over_people(gap), resamples.people)
        table[f"{first}_minus_{second}"] = differences
    return table


def not_measurable(metric: str, unfit: Mapping[str, str]) -> NotMeasurable | None:
    """Return why `metric` is not measurable where one of its judges is in `unfit`, judges with reasons; else None."""
    reasons = [f"{judge}: {unfit[judge]}" for judge in JUDGED_BY[metric] if judge in unfit]
    return NotMeasurable("; ".join(reasons)) if reasons else None


def withhold(row: Mapping[str, Interval], unfit: Mapping[str, str]) -> dict[str, Measured]:
    """Return `row`, intervals by metric, without the values of the judges in `unfit`."""
    return {metric: not_measurable(metric, unfit) or interval for metric, interval in row.items()}


def normalise(
    scores: Mapping[str, Scores],
    pairs: Mapping[str, Mapping[str, np.ndarray]],
    resamples: Resamples,
    unfit: Mapping[str, str],
) -> Shown:
    """Return s = (similarity − floor) / (ceiling − floor): 0 is another person, 1 another photo of the person.

    Similarity, floor and ceiling are resampled together. The two similarities of pairs are on the same scale. Where a
    judge of identity is in `unfit`, no value is given: its floor and ceiling may be the same.
    """
    metric = "id_similarity"
    if (missing := not_measurable(metric, unfit)) is not None:
        paired = {variant: dict.fromkeys(_SCALED_PAIRS, missing) for variant in pairs}
        ends = (FLOOR, CEILING)
        return {variant: {metric: missing, **paired.get(variant, {})} for variant in scores if variant not in ends}
    people, weights = resamples.people.shape[1], resamples.people
    low, high = (mean_over_people(person_means(scores[end], metric, people)) for end in (FLOOR, CEILING))
    table: Shown = {}
    for variant, found in scores.items():
        if variant in (FLOOR, CEILING):
            continue
        mean = mean_over_people(person_means(found, metric, people))
        table[variant] = {
            metric: bootstrap(lambda w, mean=mean: (mean(w) - low(w)) / (high(w) - low(w)), weights)  # type: ignore[misc]
        }
    joint = np.concatenate([resamples.people, resamples.pairs], axis=1)
    for variant, columns in pairs.items():
        for name in _SCALED_PAIRS:
            mean = mean_over_people(columns[name])
            table[variant][name] = bootstrap(
                lambda w, mean=mean: (  # type: ignore[misc]
                    (mean(w[:, people:]) - low(w[:, :people])) / (high(w[:, :people]) - low(w[:, :people]))
                ),
                joint,
                units=resamples.pairs.shape[1],
            )
    return table


def plain(table: Mapping[str, Mapping[str, Measured]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the table as JSON values."""
    return {key: {metric: one.plain() for metric, one in row.items()} for key, row in table.items()}
