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
    PEOPLE_OF,
    SHIPPED,
    TEXT_ONLY,
    TRUE_TOKENS,
    WITHOUT_GATE,
    WITHOUT_IMR,
    multi_metric,
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
# Of several people, these similarities are on the same scale as id_similarity.
_SCALED = {
    multi_metric(name, people) for people in (2, 3, 4) for name in ("multi_id_similarity", "multi_id_min", "leakage")
}
Columns = Mapping[str, Mapping[str, np.ndarray]]
"""Variant → metric of several people → one value per picture (Q,), NaN for those that the variant does not have."""
# The same, once the metrics of judges that cannot judge are withheld.
Measured = Interval | NotMeasurable
Shown = dict[str, dict[str, Measured]]


@dataclass(frozen=True)
class Resamples:
    """Bootstrap weights over people (B, P), and by the number of people in them over pictures of several (B, Q)."""

    people: np.ndarray
    pictures: Mapping[int, np.ndarray]


def person_means(scores: Scores, metric: str, people: int, cells: np.ndarray | None = None) -> np.ndarray:
    """Return a metric's mean for each person (P,), over all cells of `scores` or those in `cells`."""
    values = scores.columns[metric]
    if cells is not None:
        values = np.where(np.isin(scores.cells, cells), values, np.nan)
    return means_by_person(values, scores.person, people)


def summarise(scores: Mapping[str, Scores], several: Columns, resamples: Resamples) -> Table:
    """Return every metric of every variant with its interval: mean over people, or over pictures of several people."""
    people = resamples.people.shape[1]
    table: Table = {}
    for variant, found in scores.items():
        table[variant] = {
            metric: bootstrap(mean_over_people(person_means(found, metric, people)), resamples.people)
            for metric in METRICS
            if metric in found.columns and not np.isnan(found.columns[metric]).all()
        }
        for metric, values in several.get(variant, {}).items():
            table[variant][metric] = bootstrap(mean_over_people(values), resamples.pictures[PEOPLE_OF[metric]])
    return table


def compare(scores: Mapping[str, Scores], several: Columns, resamples: Resamples) -> Table:
    """Return the paired differences of COMPARED, keyed `<first>_minus_<second>`.

    Metrics of one person are compared person by person on the cells of both variants, those of several people picture
    by picture.
    """
    people = resamples.people.shape[1]
    table: Table = {}
    for first, second in COMPARED:
        if first not in scores or second not in scores:
            continue
        a, b = scores[first], scores[second]
        both = np.intersect1d(a.cells, b.cells)
        differences: dict[str, Interval] = {}
        for metric in METRICS:
            if metric in PEOPLE_OF:
                sides = [several.get(variant, {}).get(metric) for variant in (first, second)]
                weights = resamples.pictures.get(PEOPLE_OF[metric])
            else:
                known = metric in a.columns and metric in b.columns
                sides = [person_means(one, metric, people, both) if known else None for one in (a, b)]
                weights = resamples.people
            if weights is None or sides[0] is None or sides[1] is None:
                continue
            gap = sides[0] - sides[1]
            if not np.isnan(gap).all():
                differences[metric] = bootstrap(mean_over_people(gap), weights)
        table[f"{first}_minus_{second}"] = differences
    return table


def not_measurable(metric: str, unfit: Mapping[str, str]) -> NotMeasurable | None:
    """Return why `metric` is not measurable where one of its judges is in `unfit`, judges with reasons; else None."""
    reasons = [f"{judge}: {unfit[judge]}" for judge in JUDGED_BY[metric] if judge in unfit]
    return NotMeasurable("; ".join(reasons)) if reasons else None


def withhold(row: Mapping[str, Measured], unfit: Mapping[str, str]) -> dict[str, Measured]:
    """Return `row`, values by metric, without the values of the judges in `unfit`."""
    return {metric: not_measurable(metric, unfit) or value for metric, value in row.items()}


def normalise(scores: Mapping[str, Scores], several: Columns, resamples: Resamples, unfit: Mapping[str, str]) -> Shown:
    """Return s = (similarity − floor) / (ceiling − floor): 0 is another person, 1 another photo of the person.

    Similarity, floor and ceiling are resampled together. Similarities and leakage of several people are on the same
    scale. Where a judge of identity is in `unfit`, no value is given: its floor and ceiling may be the same.
    """
    metric = "id_similarity"
    scaled = {
        variant: {name: values for name, values in several.get(variant, {}).items() if name in _SCALED}
        for variant in scores
        if variant not in (FLOOR, CEILING)
    }
    if (missing := not_measurable(metric, unfit)) is not None:
        return {variant: dict.fromkeys((metric, *names), missing) for variant, names in scaled.items()}
    people, weights = resamples.people.shape[1], resamples.people
    low, high = (mean_over_people(person_means(scores[end], metric, people)) for end in (FLOOR, CEILING))
    table: Shown = {}
    for variant, columns in scaled.items():
        mean = mean_over_people(person_means(scores[variant], metric, people))
        table[variant] = {
            metric: bootstrap(lambda w, mean=mean: (mean(w) - low(w)) / (high(w) - low(w)), weights)  # type: ignore[misc]
        }
        for name, values in columns.items():
            mean, pictures = mean_over_people(values), resamples.pictures[PEOPLE_OF[name]]
            table[variant][name] = bootstrap(
                lambda w, mean=mean: (  # type: ignore[misc]
                    (mean(w[:, people:]) - low(w[:, :people])) / (high(w[:, :people]) - low(w[:, :people]))
                ),
                np.concatenate([weights, pictures], axis=1),
                units=pictures.shape[1],
            )
    return table


def plain(table: Mapping[str, Mapping[str, Measured]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the table as JSON values."""
    return {key: {metric: one.plain() for metric, one in row.items()} for key, row in table.items()}
