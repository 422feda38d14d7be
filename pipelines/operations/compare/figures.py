"""From the evaluations of all cells to the table: values, paired differences, intervals over people, spread over seeds.

An interval is over people (of metrics of several people, over pictures), with the seeds of each person averaged; the
same resamples serve all rows, so that differences are paired. Seeds are too few to resample: their values are listed.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.core.errors import UserError
from pipelines.core.params import changes
from pipelines.evaluation.headline import S, comparable_settings
from pipelines.evaluation.intervals import Interval, Statistic, bootstrap, mean_over_people, resample
from pipelines.evaluation.variants import CEILING, FLOOR, METRICS, MODEL, PEOPLE_OF

NO_PAIRS = "a distance between sets of pictures has no value for each person"


@dataclass(frozen=True)
class Cell:
    """One cell of the comparison as its figures need it.

    `document`: the contents of its metrics file, with its row as the model; `units`: metric → the value of every
    person or picture, None where there is none; `ends`: the similarity of every person at floor and ceiling.
    """

    name: str
    document: Mapping[str, Any]
    units: Mapping[str, Sequence[float | None]]
    ends: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Figure:
    """A metric of a row, or its difference to the first row: mean over seeds and people, interval, value of each seed.

    `interval` is None where nothing can be resampled; `value` is None where it is not measurable, for `reason`.
    """

    value: float | None = None
    interval: Interval | None = None
    seeds: tuple[float, ...] = ()
    reason: str = ""

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds; None of a single one."""
        return statistics.stdev(self.seeds) if len(self.seeds) > 1 else None

    @property
    def sign(self) -> int:
        """Of a difference: 1 or −1 where the interval is on one side of zero, and so is every seed; otherwise 0."""
        sign = 0 if self.interval is None else self.interval.sign
        return sign if all(one * sign > 0 for one in self.seeds) else 0

    def plain(self) -> dict[str, Any]:
        """Return the figure for JSON."""
        if self.value is None:
            return {"value": None, "reason": self.reason}
        ends = {} if self.interval is None else self.interval.plain()
        spread: dict[str, Any] = {"seeds": [round(one, 6) for one in self.seeds]}
        if self.deviation is not None:
            spread["deviation"] = round(self.deviation, 6)
        return {"value": round(self.value, 6), **ends, **spread, **({"reason": self.reason} if self.reason else {})}


@dataclass(frozen=True)
class Figures:
    """The figures of all rows by name and metric, and of all but the first the differences to it."""

    values: Mapping[str, Mapping[str, Figure]]
    differences: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)


def figures_of(rows: Mapping[str, Sequence[Cell]], resamples: int, seed: int) -> Figures:
    """Return the figures of `rows`, each the cells of its seeds, which were evaluated under the same conditions."""
    first = next(iter(rows))
    values = {name: _values(cells, resamples, seed) for name, cells in rows.items()}
    differences = {
        name: {
            metric: gap
            for metric in values[name]
            if (gap := _difference(cells, rows[first], metric, resamples, seed)) is not None
        }
        for name, cells in rows.items()
        if name != first
    }
    return Figures(values, differences)


def check_comparable(cells: Sequence[Cell], varied: Sequence[str] = ()) -> None:
    """Raise UserError, naming both sides, unless the cells have one evaluation set, and one set of conditions.

    `varied` lists the keys of the section `evaluate` that differ on purpose.
    """
    first, (mine, own) = cells[0], _conditions(cells[0], varied)
    for other in cells[1:]:
        theirs, its = _conditions(other, varied)
        if mine != theirs:
            raise other_questions((first.name, mine, _people(first)), (other.name, theirs, _people(other)))
        if differing := changes(own, its):
            key, left, right = differing[0]
            raise UserError(
                f"{first.name} was evaluated with {key} {_short(left)}, {other.name} with {_short(right)}: their "
                "figures do not compare; an adapter's own conventions fix some of these: compare such adapters alone"
            )


def other_questions(*sides: tuple[str, str, int]) -> UserError:
    """Return the error for two rows, each its name, evaluation set and number of people, of which the sets differ."""
    (name, own, people), (other, its, others) = sides
    return UserError(
        f"{name} is evaluated on the set {own[:12]} of {people} people, {other} on {its[:12]} of {others}: other "
        "people or questions do not compare; with evaluate.seen_people=leave_out each leaves out whom its networks "
        "saw: hold out people whom none of them saw"
    )


def _conditions(cell: Cell, varied: Sequence[str]) -> tuple[str, dict[str, Any]]:
    settings = comparable_settings(cell.document)
    return cell.document["evaluation_set"], {key: one for key, one in settings.items() if key not in varied}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _people(cell: Cell) -> int:
    return max((len(values) for metric, values in cell.units.items() if metric not in PEOPLE_OF), default=0)


def _values(cells: Sequence[Cell], resamples: int, seed: int) -> dict[str, Figure]:
    model = cells[0].document[MODEL]
    found = {S: _figure(cells, S, resamples, seed)}
    found |= {metric: _figure(cells, metric, resamples, seed) for metric in METRICS if metric in model}
    return {metric: figure for metric, figure in found.items() if figure is not None}


def _figure(cells: Sequence[Cell], metric: str, resamples: int, seed: int) -> Figure | None:
    plain = [_plain(cell, metric) for cell in cells]
    if reasons := [one["reason"] for one in plain if one is not None and one["value"] is None]:
        return Figure(reason=str(reasons[0]))
    if any(one is None for one in plain):
        return None
    arrays = [_array(cell, metric) for cell in cells]
    if any(one is None for one in arrays):
        values = tuple(float(one["value"]) for one in plain if one is not None)
        return Figure(statistics.mean(values), None, values, NO_PAIRS)
    return _resampled([one for one in arrays if one is not None], cells[0], metric, resamples, seed)


def _difference(
    cells: Sequence[Cell], reference: Sequence[Cell], metric: str, resamples: int, seed: int
) -> Figure | None:
    """Return the paired difference of two rows; None where one of them lacks the metric, or it has no pairs."""
    for one in (*cells, *reference):
        if (plain := _plain(one, metric)) is None or plain["value"] is None or _array(one, metric) is None:
            return None
    ours, theirs = ([array for one in row if (array := _array(one, metric)) is not None] for row in (cells, reference))
    # A row without seeds is compared with every seed of the other.
    turns = zip(ours, theirs, strict=True) if len(ours) == len(theirs) else itertools.product(ours, theirs)
    gaps = [one - other for one, other in turns]
    if any(np.isnan(gap).all() for gap in gaps):
        return None
    return _resampled(gaps, reference[0], metric, resamples, seed, shift=False)


def _resampled(
    arrays: Sequence[np.ndarray], cell: Cell, metric: str, resamples: int, seed: int, *, shift: bool = True
) -> Figure:
    """Return the mean of `arrays` (one per seed, a value per unit) with its interval; `s` from floor to ceiling.

    `shift`: of a similarity, not of a difference of two.
    """
    weights = resample(len(arrays[0]), resamples, seed)
    scaled = _scale(cell, shift) if metric == S else (lambda mean: mean)
    whole = np.ones((1, weights.shape[1]))
    seeds = tuple(float(scaled(mean_over_people(array))(whole)[0]) for array in arrays)
    interval = bootstrap(scaled(mean_over_people(_mean(arrays))), weights)
    return Figure(interval.value, interval, seeds)


def _scale(cell: Cell, shift: bool) -> Callable[[Statistic], Statistic]:
    low, high = (mean_over_people(_floats(cell.ends[end])) for end in (FLOOR, CEILING))

    def scaled(mean: Statistic) -> Statistic:
        return lambda w: (mean(w) - (low(w) if shift else 0.0)) / (high(w) - low(w))

    return scaled


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over seeds of every unit, NaN left out; NaN where no seed has a value."""
    stacked = np.stack(arrays)
    count = (~np.isnan(stacked)).sum(0)
    return np.where(count > 0, np.nansum(stacked, 0) / np.maximum(count, 1), np.nan)


def _plain(cell: Cell, metric: str) -> dict[str, Any] | None:
    """Return a metric of a cell's row as its metrics file has it; None where it lacks it."""
    document = cell.document
    found = document["normalised"][MODEL]["id_similarity"] if metric == S else document[MODEL].get(metric)
    return None if found is None else dict(found)


def _array(cell: Cell, metric: str) -> np.ndarray | None:
    """Return the values of a metric by unit, NaN where there is none; None where it has no such values at all."""
    values = cell.units.get("id_similarity" if metric == S else metric)
    return None if values is None else _floats(values)


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([math.nan if one is None else one for one in values], float)
