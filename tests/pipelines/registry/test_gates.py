"""Promotion gates: each failure is reported with value, bound and champion's value; `doubt` decides near a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import check_params, read_tree
from pipelines.core.sections.evaluation import Gate
from pipelines.registry.gates import Champion, judge

GATES = (
    Gate(metric="id_similarity", minimum=0.4, max_regression=0.02),
    Gate(metric="leakage", maximum=0.1),
    Gate(metric="pose_accuracy", max_regression=0.05),
)


def metrics(half: float = 0.0, by_unit: list[float] | None = None, evaluation_set: str = "e", **values: float) -> dict:
    """Return what `metrics.json` holds: every value with an interval that reaches `half` to both sides."""
    intervals = {name: {"value": value, "low": value - half, "high": value + half} for name, value in values.items()}
    document: dict[str, Any] = {"evaluation_set": evaluation_set, "model": intervals}
    return document if by_unit is None else {**document, "by_unit": {"id_similarity": by_unit}}


def failures(gates: Any, challenger: dict, champion: dict | None = None) -> list[str]:
    known = None if champion is None else Champion("7", champion)
    return [one.line() for one in judge(gates, challenger, known) if not one.passed]


def fails(challenger: dict, champion: dict | None = None, **gate: Any) -> bool:
    return bool(failures([Gate(metric="id_similarity", **gate)], challenger, champion))


def test_first_version_needs_the_absolute_bounds_only() -> None:
    assert failures(GATES, metrics(id_similarity=0.41, leakage=0.05, pose_accuracy=0.0)) == []


def test_every_failed_gate_is_reported_at_once() -> None:
    champion = metrics(id_similarity=0.5, leakage=0.02, pose_accuracy=0.9)
    assert failures(GATES, metrics(id_similarity=0.39, leakage=0.2, pose_accuracy=0.8), champion) == [
        "id_similarity 0.390 < 0.400 (champion v7: 0.500)",
        "id_similarity 0.390 < 0.480 (champion v7: 0.500)",
        "leakage 0.200 > 0.100 (champion v7: 0.020)",
        "pose_accuracy 0.800 < 0.850 (champion v7: 0.900)",
    ]
    assert failures(GATES, metrics(id_similarity=0.49, leakage=0.09, pose_accuracy=0.86), champion) == []


def test_s_is_the_similarity_between_floor_and_ceiling_whatever_the_recogniser() -> None:
    document = metrics(id_similarity=0.2)
    document["normalised"] = {"model": {"id_similarity": {"value": 0.28, "low": 0.2, "high": 0.4}}}
    assert failures([Gate(metric="s", minimum=0.3)], document) == ["s 0.280 < 0.300"]
    assert failures([Gate(metric="s", minimum=0.3, doubt="passes")], document) == []
    with pytest.raises(UserError, match=r"gate model\.s: the challenger has no such metric"):
        failures([Gate(metric="s", minimum=0.3)], metrics(id_similarity=0.2))


def test_regression_of_a_metric_bound_from_above_is_a_rise() -> None:
    gates = [Gate(metric="leakage", maximum=0.5, max_regression=0.01)]
    line = "leakage 0.200 > 0.110 (champion v7: 0.100)"
    assert failures(gates, metrics(leakage=0.2), metrics(leakage=0.1)) == [line]
    assert failures(gates, metrics(leakage=0.05), metrics(leakage=0.1)) == []


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ({"doubt": "ignore", "minimum": 0.45}, False),
        ({"doubt": "ignore", "minimum": 0.55}, True),
        ({"doubt": "passes", "minimum": 0.55}, False),
        ({"doubt": "passes", "minimum": 0.61}, True),
        ({"doubt": "refuses", "minimum": 0.45}, True),
        ({"doubt": "refuses", "minimum": 0.39}, False),
        ({"doubt": "passes", "maximum": 0.45}, False),
        ({"doubt": "passes", "maximum": 0.39}, True),
        ({"doubt": "refuses", "maximum": 0.55}, True),
        ({"doubt": "refuses", "maximum": 0.61}, False),
    ],
)
def test_the_end_of_the_interval_that_counts(gate: dict[str, Any], expected: bool) -> None:
    assert fails(metrics(0.1, id_similarity=0.5), **gate) is expected


@pytest.mark.parametrize(
    ("doubt", "margin", "expected"),
    [
        ("ignore", 0.04, True),
        ("ignore", 0.06, False),
        ("passes", 0.0, False),
        ("refuses", 0.09, True),
        ("refuses", 0.11, False),
    ],
)
def test_unpaired_intervals_are_put_together(doubt: str, margin: float, expected: bool) -> None:
    # The difference is −0.05, its half interval √(0.03² + 0.04²) = 0.05: from −0.10 to 0.00.
    champion, challenger = metrics(0.04, id_similarity=0.60), metrics(0.03, id_similarity=0.55)
    assert fails(challenger, champion, max_regression=margin, doubt=doubt) is expected


def test_the_same_people_are_compared_one_by_one() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.uniform(0.2, 0.8, 30)  # people differ a lot, the two models hardly
    ours = theirs - 0.03 + rng.normal(0, 0.005, 30)
    champion = metrics(0.1, theirs.tolist(), id_similarity=float(theirs.mean()))
    gates = [Gate(metric="id_similarity", max_regression=0.01, doubt="passes")]
    mean = float(ours.mean())
    (line,) = failures(gates, metrics(0.1, ours.tolist(), id_similarity=mean), champion)
    assert line.startswith(f"id_similarity {mean:.3f} < {theirs.mean() - 0.01:.3f} (champion v7: ")
    # Unpaired, the same numbers are within the noise: without values per person, or on another evaluation set.
    assert failures(gates, metrics(0.1, id_similarity=mean), champion) == []
    assert failures(gates, metrics(0.1, ours.tolist(), "f", id_similarity=mean), champion) == []


def test_nan_never_passes() -> None:
    assert fails(metrics(id_similarity=float("nan")), minimum=0.1)


def test_a_metric_that_is_not_measurable_fails_and_says_why() -> None:
    unknown = {
        "evaluation_set": "e",
        "model": {"id_similarity": {"value": None, "reason": "recogniser: auc 0.6 < 0.9"}},
    }
    known, line = metrics(id_similarity=0.9), "id_similarity is not measurable (recogniser: auc 0.6 < 0.9)"
    absolute, regression = (
        [Gate(metric="id_similarity", **bound)] for bound in ({"maximum": 2.0}, {"max_regression": 1.0})
    )
    assert failures(absolute, unknown) == failures(regression, unknown, known) == [line]
    (of_champion,) = failures(regression, known, unknown)
    assert of_champion == "id_similarity is not measurable (of champion v7: recogniser: auc 0.6 < 0.9)"
    assert failures(absolute, known, unknown) == []
    (result,) = judge(absolute, unknown, None)
    assert (result.plain()["value"], result.plain()["reason"]) == (None, "recogniser: auc 0.6 < 0.9")


def test_an_unknown_metric_and_a_gate_that_bounds_nothing_are_named(project: Path) -> None:
    with pytest.raises(UserError, match=r"model\.id_similarty"):
        failures([Gate(metric="id_similarty", minimum=0.1)], metrics(id_similarity=1.0))
    tree = read_tree(project / "params.yaml")
    tree["register"]["gates"].append({"metric": "kid"})
    with pytest.raises(UserError, match="gate kid bounds nothing: give it minimum, maximum or max_regression"):
        check_params(tree, "params.yaml")
