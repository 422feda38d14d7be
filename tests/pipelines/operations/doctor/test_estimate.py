"""Short runs are compared by the work that they do, whatever else the machine does meanwhile."""

from __future__ import annotations

import time

import pytest
import torch

from pipelines.operations.doctor.estimate import _compared


def test_other_programs_are_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"perf_counter": 0.0, "process_time": 0.0}

    def run(steps: int) -> None:
        clock["process_time"] += steps
        # Twice as slow as alone, and four times as slow in the second run.
        clock["perf_counter"] += 2 * steps if clock["process_time"] != 6 else 4 * steps

    monkeypatch.setattr(time, "perf_counter", lambda: clock["perf_counter"])
    monkeypatch.setattr(time, "process_time", lambda: clock["process_time"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # 8 + 8 + 12 seconds by the clock for 4 + 2 + 6 of the processor.
    assert _compared(run, (4, 2, 6)) == pytest.approx([28 / 3, 14 / 3, 14])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    clock.update(perf_counter=0.0, process_time=0.0)
    assert _compared(run, (4, 2, 6)) == [8, 8, 12]
