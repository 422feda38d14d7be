"""What a confidence interval does to a gate: nothing, let it pass, or let it fail; differences are paired."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import check_params, read_tree
from pipelines.core.sections.evaluation import Gate
from pipelines.registry.gates import Champion, failed_gates, judge


def metrics(value: float, half: float, by_unit: list[float] | None = None, evaluation_set: str = "e") -> dict:
    document = {
        "evaluation_set": evaluation_set,
        "model": {"id_similarity": {"value": value, "low": value - half, "high": value + half}},
    }
    return document if by_unit is None else {**document, "by_unit": {"id_similarity": by_unit}}


@pytest.mark.parametrize(
    ("doubt", "minimum", "fails"),
    [
        ("ignore", 0.45, False),
        ("ignore", 0.55, True),
        ("passes", 0.55, False),
        ("passes", 0.61, True),
        ("refuses", 0.45, True),
        ("refuses", 0.39, False),
    ],
)
def test_the_end_of_the_interval_that_counts(doubt: str, minimum: float, fails: bool) -> None:
    gate = Gate(metric="id_similarity", minimum=minimum, doubt=doubt)
    assert bool(failed_gates([gate], metrics(0.5, 0.1), None)) is fails


def test_a_bound_from_above_is_the_mirror_image() -> None:
    def fails(doubt: str, maximum: float) -> bool:
        return bool(failed_gates([Gate(metric="id_similarity", maximum=maximum, doubt=doubt)], metrics(0.5, 0.1), None))

    assert [fails("passes", 0.45), fails("passes", 0.39)] == [False, True]
    assert [fails("refuses", 0.55), fails("refuses", 0.61)] == [True, False]


def test_unpaired_intervals_are_put_together() -> None:
    champion = Champion("7", metrics(0.60, 0.04))
    challenger = metrics(0.55, 0.03)

    def fails(doubt: str, margin: float) -> bool:
        gate = Gate(metric="id_similarity", max_regression=margin, doubt=doubt)
        return bool(failed_gates([gate], challenger, champion))

    # The difference is −0.05, its half interval √(0.03² + 0.04²) = 0.05: from −0.10 to 0.00.
    assert [fails("ignore", 0.04), fails("ignore", 0.06)] == [True, False]
    assert [fails("passes", 0.0), fails("refuses", 0.09), fails("refuses", 0.11)] == [False, True, False]


def test_the_same_people_are_compared_one_by_one() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.uniform(0.2, 0.8, 30)  # people differ a lot, the two models hardly
    ours = theirs - 0.03 + rng.normal(0, 0.005, 30)
    champion = Champion("7", metrics(float(theirs.mean()), 0.1, theirs.tolist()))
    challenger = metrics(float(ours.mean()), 0.1, ours.tolist())
    gate = Gate(metric="id_similarity", max_regression=0.01, doubt="passes")
    (line,) = failed_gates([gate], challenger, champion)
    assert line.startswith(f"id_similarity {ours.mean():.3f} < {theirs.mean() - 0.01:.3f} (champion v7: ")
    # Without knowing who is who the same numbers are within the noise, and so they are on another evaluation set.
    assert failed_gates([gate], metrics(float(ours.mean()), 0.1), champion) == []
    other = metrics(float(ours.mean()), 0.1, ours.tolist(), evaluation_set="f")
    assert failed_gates([gate], other, champion) == []


def test_a_value_that_is_no_number_never_passes() -> None:
    gate = Gate(metric="id_similarity", minimum=0.1)
    (judged,) = judge([gate], metrics(float("nan"), 0.0), None)
    assert not judged.passed


def test_a_gate_that_bounds_nothing_is_refused(project) -> None:
    tree = read_tree(project / "params.yaml")
    tree["register"]["gates"].append({"metric": "kid"})
    with pytest.raises(UserError, match="gate kid bounds nothing: give it minimum, maximum or max_regression"):
        check_params(tree, "params.yaml")
