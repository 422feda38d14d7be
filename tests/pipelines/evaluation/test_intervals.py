from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluation.intervals import Interval, bootstrap, mean_over_people, means_by_person, resample


def test_intervals_cover_the_true_mean_about_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(0)
    weights = resample(12, 400, seed=0)
    covered = 0
    for _ in range(400):
        interval = bootstrap(mean_over_people(rng.normal(0.4, 0.2, 12)), weights)
        covered += interval.low <= 0.4 <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


def test_a_paired_difference_is_sharper_than_the_difference_of_two_intervals() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(0.5, 0.3, 15)
    better = base + 0.05 + rng.normal(0, 0.01, 15)
    weights = resample(15, 1000, seed=0)
    gap = bootstrap(mean_over_people(better - base), weights)
    alone = bootstrap(mean_over_people(base), weights)
    assert gap.sign == 1
    assert gap.high - gap.low < 0.1 * (alone.high - alone.low)


def test_people_count_equally_however_many_pictures_they_have() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.0, np.nan])
    means = means_by_person(values, np.array([0, 0, 0, 1, 2]), 3)
    assert means[:2].tolist() == [1.0, 0.0]
    assert np.isnan(means[2])
    assert bootstrap(mean_over_people(means), resample(3, 100, 0)).value == 0.5


def test_a_value_that_all_people_share_has_no_width() -> None:
    interval = bootstrap(mean_over_people(np.full(7, 0.3)), resample(7, 200, 3))
    assert interval.low == pytest.approx(0.3)
    assert interval.high == pytest.approx(0.3)


def test_a_metric_without_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="no person has a value"):
        bootstrap(mean_over_people(np.full(3, np.nan)), resample(3, 10, 0))


@settings(derandomize=True, max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=15),
    bias=st.floats(-50, 50),
    seed=st.integers(0, 1000),
)
def test_an_interval_contains_its_value_also_of_a_biased_statistic(values: list[float], bias: float, seed: int) -> None:
    mean = mean_over_people(np.array(values))

    def biased(weights: np.ndarray) -> np.ndarray:
        return mean(weights) + bias * (weights > 1).any(axis=1)

    weights = resample(len(values), 200, seed)
    found = bootstrap(biased, weights)
    assert found.low <= found.value <= found.high
    more = bootstrap(lambda w: biased(w) + 1e-9 * (w > 1).any(axis=1), weights)
    assert abs(more.low - found.low) < 1e-8, "nothing jumps where the value is at the edge"
    assert abs(more.high - found.high) < 1e-8


def test_the_bounds_enclose_the_value_and_the_seed_fixes_them() -> None:
    values = np.random.default_rng(4).exponential(size=9)
    first, second = (bootstrap(mean_over_people(values), resample(9, 300, seed=5)) for _ in range(2))
    assert first == second
    assert first.low < first.value < first.high
    assert Interval(0.1, -0.1, 0.2).sign == 0
    assert Interval(-0.1, -0.2, -0.05).sign == -1
