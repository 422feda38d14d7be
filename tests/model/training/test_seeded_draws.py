"""The order of the data and every random number follow from seed, step and process alone."""

from __future__ import annotations

import numpy as np

from model.training.seeded_draws import (
    decayed_shift,
    generator,
    normal,
    positions,
    prefetch,
    share_of,
    stratified_steps,
)


def test_an_epoch_takes_every_item_once_over_all_processes() -> None:
    taken = [positions(3, step, 8, 24)[share_of(4, rank)] for step in range(3) for rank in range(2)]
    assert sorted(np.concatenate(taken)) == list(range(24))
    following = [positions(3, step, 8, 24) for step in range(3, 6)]
    assert sorted(np.concatenate(following)) == list(range(24))
    assert not np.array_equal(np.concatenate(taken), np.concatenate(following))


def test_a_batch_may_be_larger_than_the_data() -> None:
    rows = positions(0, 5, 7, 3)
    assert rows.shape == (7,)
    assert set(rows) <= {0, 1, 2}


def test_numbers_depend_on_seed_purpose_step_and_process() -> None:
    same = normal(generator(1, "noise", 5), (3,))
    np.testing.assert_array_equal(same, normal(generator(1, "noise", 5), (3,)))
    for other in [(2, "noise", 5, 0), (1, "order", 5, 0), (1, "noise", 6, 0), (1, "noise", 5, 1)]:
        assert not np.array_equal(same, normal(generator(*other), (3,)))


def test_prefetching_changes_nothing() -> None:
    assert list(prefetch(lambda step: step * step, 3, 7)) == [9, 16, 25, 36]
    assert list(prefetch(lambda step: step, 7, 7)) == []


def test_steps_of_a_batch_cover_the_schedule() -> None:
    steps = np.sort(stratified_steps(generator(0, "steps", 1), 10, 1000))
    np.testing.assert_array_equal(steps // 100, np.arange(10))
    many = np.array([stratified_steps(generator(0, "steps", step), 10, 1000)[0] for step in range(2000)])
    assert abs(many.mean() - 500) < 20
    assert many.min() >= 0
    assert many.max() <= 999


def test_a_shift_decays_by_a_constant_factor() -> None:
    assert [round(decayed_shift(4.0, step, 8), 9) for step in (0, 4, 8)] == [4.0, 2.0, 1.0]
    assert decayed_shift(1.0, 3, 8) == 1.0


def test_a_shift_moves_steps_towards_more_noise() -> None:
    even = np.concatenate([stratified_steps(generator(0, "steps", step), 10, 1000) for step in range(200)])
    moved = np.concatenate([stratified_steps(generator(0, "steps", step), 10, 1000, 3.0) for step in range(200)])
    assert (moved >= even).all()
    assert abs((moved >= 500).mean() - 3 / 4) < 0.02
    assert moved.min() < 30
    assert moved.max() == even.max() == 999
