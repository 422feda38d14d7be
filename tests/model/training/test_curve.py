"""The loss curve, whole or continued from a checkpoint."""

from __future__ import annotations

import json

import pytest

from model.training.curve import LossCurve


def filled(curve: LossCurve, steps: range) -> LossCurve:
    for step in steps:
        curve.add({"loss": 1 / step, **({"noise": 0.1} if step == 2 else {})})
        if step % 4 == 0:
            curve.close_row(step, probe=2 / step)
    return curve


def test_a_continued_curve_is_the_same_file() -> None:
    whole = filled(LossCurve(("noise",)), range(1, 13)).csv()
    first = filled(LossCurve(("noise",)), range(1, 7))
    second = LossCurve(("noise",))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert filled(second, range(7, 13)).csv() == whole
    assert whole.splitlines()[:3] == [
        "step,loss,smoothed,noise,probe",
        "4,0.520833,0.520833,0.1,0.5",
        "8,0.158631,0.448393,,0.25",
    ]


def test_slope_per_thousand_steps() -> None:
    curve = LossCurve()
    for step in (10, 20, 30):
        curve.add({"loss": 5 - step / 100})
        curve.close_row(step, probe=1.0)
    assert curve.slope() == pytest.approx(-10)
    assert curve.slope("probe") == pytest.approx(0)
