"""Interleaved times, ratios, peak memory and rates."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from benchmarks.matrix_rate import matrix_rate
from benchmarks.measure import PeakMemory, interleaved_times, median_ratio, rounded

CPU = torch.device("cpu")


def test_every_step_runs_once_per_round_and_the_first_one_changes() -> None:
    turns: list[str] = []
    steps = {name: (lambda name=name: turns.append(name)) for name in "abc"}
    times = interleaved_times(steps, 3, CPU)
    assert turns == list("abcbcacab")
    assert {name: len(values) for name, values in times.wall.items()} == {"a": 3, "b": 3, "c": 3}
    with pytest.raises(ValueError, match="0 rounds"):
        interleaved_times(steps, 0, CPU)


def test_waiting_counts_as_wall_time_only() -> None:
    times = interleaved_times({"waits": lambda: time.sleep(0.2), "nothing": lambda: None}, 2, CPU)
    assert min(times.wall["waits"]) >= 0.2
    assert max(times.cpu["waits"]) < 0.1
    assert min(times.wall["nothing"]) < 0.1


def test_a_ratio_is_taken_within_each_round() -> None:
    # The second round was ten times slower for both.
    assert median_ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]) == 2.0


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux only")
def test_a_peak_is_measured_until_reset() -> None:
    memory = PeakMemory(CPU)
    memory.reset()
    before = memory.bytes()
    torch.ones(50_000_000)
    assert 150e6 < memory.bytes() - before < 250e6
    memory.reset()
    assert memory.bytes() - before < 100e6


def test_a_matrix_product_has_a_rate() -> None:
    assert 1e8 < matrix_rate(CPU, torch.float32, side=256, calls=2) < 1e14


def test_figures_keep_five_digits() -> None:
    assert rounded({"a": [1.2345678, 3], "b": "x"}) == {"a": [1.2346, 3], "b": "x"}
