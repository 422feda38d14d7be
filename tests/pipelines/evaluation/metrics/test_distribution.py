from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.intervals import bootstrap, resample
from pipelines.evaluation.metrics.distribution import diversity, kid, share_in_box


def features(rng: np.random.Generator, count: int, shift: float) -> np.ndarray:
    values = rng.normal(size=(count, 12)) + shift
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_the_distance_of_a_distribution_to_itself_is_about_zero_and_to_another_is_not() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(10), 20)
    real, same, shifted = (features(rng, 200, shift) for shift in (0.3, 0.3, 1.0))
    weights = resample(10, 300, 0)
    near = bootstrap(kid(same, person, real, person, 10), weights)
    far = bootstrap(kid(shifted, person, real, person, 10), weights)
    assert near.low < 0 < near.high
    assert far.low > 10 * abs(near.value)


@pytest.mark.parametrize(("rows", "columns"), [(256, 4096), (4, 4096), (2, 3)])
def test_the_distance_is_the_unbiased_estimate(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.evaluation.metrics.distribution._ROWS", rows)
    monkeypatch.setattr("pipelines.evaluation.metrics.distribution._COLUMNS", columns)
    rng = np.random.default_rng(1)
    drawn, real = features(rng, 6, 0.2), features(rng, 5, 0.5)
    kernel = (np.concatenate([drawn, real]) @ np.concatenate([drawn, real]).T + 1) ** 3
    first, second, cross = kernel[:6, :6], kernel[6:, 6:], kernel[:6, 6:]
    expected = (first.sum() - np.trace(first)) / 30 + (second.sum() - np.trace(second)) / 20 - 2 * cross.mean()
    statistic = kid(drawn, np.array([0, 0, 0, 1, 1, 1]), real, np.array([0, 0, 1, 1, 1]), 2)
    assert statistic(np.ones((1, 2))) == pytest.approx([expected])


def test_a_person_drawn_twice_in_a_resample_is_not_compared_with_itself() -> None:
    rng = np.random.default_rng(2)
    drawn, real = features(rng, 8, 0.0), features(rng, 8, 0.0)
    person = np.repeat([0, 1], 4)
    twice = kid(drawn, person, real, person, 2)(np.array([[2.0, 0.0]]))
    once = kid(drawn[:4], np.zeros(4, int), real[:4], np.zeros(4, int), 1)(np.array([[1.0]]))
    assert twice == pytest.approx(once)


def pictures(rng: np.random.Generator, people: int, shift: float) -> tuple[np.ndarray, ...]:
    """Return drawn pictures, real photos and their people: those of one person resemble each other."""
    own, moved = rng.normal(size=(people, 1, 24)), np.repeat([shift, 0.0], 12)
    sides = [centre + own + 0.5 * rng.normal(size=(people, count, 24)) for count, centre in ((11, moved), (10, 0.0))]
    flat = [(side / np.linalg.norm(side, axis=2, keepdims=True)).reshape(-1, 24) for side in sides]
    return flat[0], np.repeat(np.arange(people), 11), flat[1], np.repeat(np.arange(people), 10)


def test_resamples_of_people_scatter_around_the_distance() -> None:
    """Also where people are drawn twice, whose pictures resemble each other; an interval is neither beside nor wide."""
    weights, rng = resample(12, 400, 0), np.random.default_rng(3)
    found = [kid(*pictures(rng, 12, 0.4), 12) for _ in range(100)]
    values = [statistic(np.ones((1, 12)))[0] for statistic in found]
    middles = [np.median(statistic(weights)) for statistic in found]
    assert abs(np.mean(middles) - np.mean(values)) < 0.1 * np.std(values)
    intervals = [bootstrap(statistic, weights) for statistic in found]
    assert all(one.low < one.value < one.high for one in intervals)
    covered = np.mean([one.low <= np.mean(values) <= one.high for one in intervals])
    assert 0.9 <= covered <= 0.99
    assert np.mean([one.high - one.low for one in intervals]) < 5 * np.std(values)


def test_diversity_is_the_mean_distance_within_a_group() -> None:
    values = diversity(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), np.array([0, 0, 1, 2]))
    assert values[:2].tolist() == [1.0, 1.0]
    assert np.isnan(values[2:]).all()


@pytest.mark.parametrize(
    ("box", "expected"),
    [((0, 0, 1, 1), 1.0), ((0, 0, 0.5, 1), 0.75), ((0.5, 0, 1, 1), 0.25), ((0, 0, 0.25, 1), 0.375), ((0, 0, 0, 0), 0)],
)
def test_the_share_of_the_gate_inside_a_box(box: tuple[float, ...], expected: float) -> None:
    gate = np.array([[2.0, 1.0], [1.0, 0.0]])
    assert share_in_box(gate, np.array(box)) == pytest.approx(expected)
    assert share_in_box(np.zeros((4, 4)), np.array(box)) == 0.0
