"""95 % intervals: a bootstrap over people with the same resamples for all metrics, so that differences are paired.

`weights[b, p]` is the number of times that person p is in resample b. A statistic is a function of such weights; its
value is the result for weights of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
"""Weights (B, P) → values (B,); NaN where no person of a resample has a value."""


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def plain(self) -> dict[str, float]:
        """Return the three numbers for JSON, rounded to six decimals."""
        return {"value": round(self.value, 6), "low": round(self.low, 6), "high": round(self.high, 6)}

    @property
    def sign(self) -> int:
        """1 or −1 where the whole interval is on one side of zero, otherwise 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class NotMeasurable:
    """Takes the place of an interval where a judge on which the metric depends cannot judge."""

    reason: str

    def plain(self) -> dict[str, str | None]:
        """Return the JSON values: no value, and the reason."""
        return {"value": None, "reason": self.reason}


def resample(units: int, count: int, seed: int) -> np.ndarray:
    """Return (count, units) int: how often each of `units` people is drawn in each of `count` resamples."""
    rng = np.random.default_rng([seed, units, count])
    return rng.multinomial(units, np.full(units, 1.0 / units), size=count)


def means_by_person(values: np.ndarray, person: np.ndarray, people: int) -> np.ndarray:
    """Return each person's mean (people,) of `values` (N,) without NaN; NaN for a person without values."""
    valid = ~np.isnan(values)
    total = np.bincount(person[valid], weights=values[valid], minlength=people)
    count = np.bincount(person[valid], minlength=people)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def mean_over_people(person_means: np.ndarray) -> Statistic:
    """Return the statistic "mean over people" of per-person values (P,), NaN left out."""
    valid = ~np.isnan(person_means)
    filled = np.where(valid, person_means, 0.0)

    def statistic(weights: np.ndarray) -> np.ndarray:
        count = weights @ valid.astype(float)
        return np.where(count > 0, (weights @ filled) / np.maximum(count, 1e-12), np.nan)

    return statistic


def bootstrap(statistic: Statistic, weights: np.ndarray, units: int | None = None) -> Interval:
    """Return the value of `statistic` and its 95 % percentile interval over the resamples `weights` (B, P).

    The percentiles are expanded (Hesterberg 2015, section 4): for a dozen people the usual ones are too narrow. A value
    beyond one of them is the bound. A statistic must have no bias in resamples, where people occur several times.
    `units` is the sample size for the expansion (default P). Raises ValueError where the statistic is NaN.
    """
    from scipy.stats import norm, t

    units = weights.shape[1] if units is None else units
    value = float(statistic(np.ones((1, weights.shape[1])))[0])
    if math.isnan(value):
        raise ValueError("the statistic is NaN: no person has a value")
    if units < 2:
        return Interval(value, value, value)
    share = float(norm.cdf(math.sqrt(units / (units - 1)) * t.ppf(0.025, units - 1)))
    drawn = statistic(weights)
    low, high = np.quantile(drawn[~np.isnan(drawn)], [share, 1 - share])
    return Interval(value, min(float(low), value), max(float(high), value))
