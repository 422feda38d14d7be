"""Promotion gates: every failed one is reported with value, bound and the champion's value."""

from __future__ import annotations

import pytest

from pipelines.core.errors import UserError
from pipelines.core.sections.evaluation import Gate
from pipelines.registry.gates import Champion, failed_gates


def metrics(**values: float) -> dict:
    return {"model": {name: {"value": value, "low": value, "high": value} for name, value in values.items()}}


GATES = (
    Gate(metric="id_similarity", minimum=0.4, max_regression=0.02),
    Gate(metric="leakage", maximum=0.1),
    Gate(metric="pose_accuracy", max_regression=0.05),
)


def test_first_version_needs_the_absolute_bounds_only() -> None:
    assert failed_gates(GATES, metrics(id_similarity=0.41, leakage=0.05, pose_accuracy=0.0), None) == []


def test_every_failed_gate_is_reported_at_once() -> None:
    champion = Champion("7", metrics(id_similarity=0.5, leakage=0.02, pose_accuracy=0.9))
    failures = failed_gates(GATES, metrics(id_similarity=0.39, leakage=0.2, pose_accuracy=0.8), champion)
    assert failures == [
        "id_similarity 0.390 < 0.400 (champion v7: 0.500)",
        "id_similarity 0.390 < 0.480 (champion v7: 0.500)",
        "leakage 0.200 > 0.100 (champion v7: 0.020)",
        "pose_accuracy 0.800 < 0.850 (champion v7: 0.900)",
    ]


def test_a_challenger_within_the_margins_passes() -> None:
    champion = Champion("7", metrics(id_similarity=0.5, leakage=0.02, pose_accuracy=0.9))
    assert failed_gates(GATES, metrics(id_similarity=0.49, leakage=0.09, pose_accuracy=0.86), champion) == []


def test_regression_of_a_metric_bound_from_above_is_a_rise() -> None:
    gate = Gate(metric="leakage", maximum=0.5, max_regression=0.01)
    champion = Champion("1", metrics(leakage=0.1))
    assert failed_gates([gate], metrics(leakage=0.2), champion) == ["leakage 0.200 > 0.110 (champion v1: 0.100)"]
    assert failed_gates([gate], metrics(leakage=0.05), champion) == []


def test_unknown_metric_is_an_error_that_names_it() -> None:
    with pytest.raises(UserError, match=r"model\.id_similarty"):
        failed_gates([Gate(metric="id_similarty", minimum=0.1)], metrics(id_similarity=1.0), None)
