"""Figures of a comparison: paired differences, intervals over people, spread over seeds, and what has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.operations.compare.figures import NO_PAIRS, Cell, Figures, check_comparable, figures_of
from pipelines.operations.compare.tables import latex, metric_rows, seeds_text

PEOPLE = 12


def cell(name: str, similarity: np.ndarray, *, withheld: str = "", **settings: Any) -> Cell:
    """A cell with these similarities of its people; floor 0 and ceiling 1 for everybody."""
    value = {"value": float(np.nanmean(similarity)), "low": 0.0, "high": 1.0}
    measured = {"value": None, "reason": withheld} if withheld else value
    model = {"id_similarity": measured, "expression_accuracy": value, "kid": {"value": 0.5, "low": 0.4, "high": 0.6}}
    document = {
        "evaluation_set": settings.pop("evaluation_set", "e" * 64),
        "model": model,
        "normalised": {"model": {"id_similarity": measured}},
        "settings": {"sampler": "ddim", "steps": 20, **settings},
    }
    values = [None if np.isnan(one) else float(one) for one in similarity]
    units = {"expression_accuracy": values, **({} if withheld else {"id_similarity": values})}
    ends = {"floor": {"id_similarity": [0.0] * PEOPLE}, "ceiling": {"id_similarity": [1.0] * PEOPLE}}
    return Cell(name, document, units, {end: one["id_similarity"] for end, one in ends.items()})


def people(seed: int, shift: float = 0.0) -> np.ndarray:
    """Similarities of people who differ much; with `shift` all of them a little higher."""
    return (
        np.random.default_rng(5).normal(0.5, 0.2, PEOPLE) + shift + np.random.default_rng(seed).normal(0, 0.01, PEOPLE)
    )


def test_differences_are_paired_person_by_person() -> None:
    rows = {
        "a": [cell("a, seed 0", people(0)), cell("a, seed 1", people(1))],
        "b": [cell("b, seed 0", people(2, 0.1)), cell("b, seed 1", people(3, 0.1))],
    }
    figures = figures_of(rows, 500, 0)
    gap = figures.differences["b"]["s"]
    assert gap.value == pytest.approx(0.1, abs=0.02)
    assert gap.interval is not None
    assert gap.interval.high - gap.interval.low < 0.03, "people who differ much do not widen it"
    whole = figures.values["a"]["s"]
    assert whole.interval is not None
    assert whole.interval.high - whole.interval.low > 0.1
    assert (gap.sign, len(gap.seeds), len(whole.seeds)) == (1, 2, 2)
    assert whole.value == pytest.approx(np.mean([people(0), people(1)]), abs=1e-6)
    assert "a" not in figures.differences


def test_a_difference_that_one_seed_contradicts_is_open() -> None:
    rows = {"a": [cell("a", people(0))], "b": [cell("b 0", people(1, 0.3)), cell("b 1", people(2, -0.02))]}
    gap = figures_of(rows, 200, 0).differences["b"]["s"]
    assert gap.interval is not None
    assert gap.interval.low > 0
    assert gap.sign == 0


def test_one_seed_has_no_spread() -> None:
    figures = figures_of({"a": [cell("a", people(0))], "b": [cell("b", people(1))]}, 50, 0)
    figure = figures.values["a"]["s"]
    assert figure.deviation is None
    assert "deviation" not in figure.plain()
    assert seeds_text(figure) == "one seed"
    cells = metric_rows(figures, {"a": True, "b": False})[0]["cells"]
    assert [one["seeds"] for one in cells] == ["one seed", ""]


def test_what_is_not_measurable_stays_so_with_its_reason() -> None:
    rows = {"a": [cell("a", people(0), withheld="recogniser: AUC 0.4")], "b": [cell("b", people(1))]}
    figures = figures_of(rows, 50, 0)
    assert figures.values["a"]["s"].plain() == {"value": None, "reason": "recogniser: AUC 0.4"}
    assert "s" not in figures.differences["b"]
    shown = {row["metric"]: row["cells"] for row in metric_rows(figures, {"a": True, "b": True})}
    assert (shown["s"][0]["value"], shown["s"][0]["reason"]) == ("not measurable", "recogniser: AUC 0.4")
    assert "not measurable" in latex(figures, [], "A note.")


def test_a_metric_without_a_value_for_each_person_has_no_interval() -> None:
    figures = figures_of({"a": [cell("a", people(0))], "b": [cell("b", people(1))]}, 50, 0)
    figure = figures.values["a"]["kid"]
    assert (figure.value, figure.interval, figure.reason) == (0.5, None, NO_PAIRS)
    assert "kid" not in figures.differences["b"]


def test_people_whom_one_row_lacks_are_left_out_of_the_difference() -> None:
    mine = people(0)
    mine[0] = np.nan
    gap = figures_of({"a": [cell("a", mine)], "b": [cell("b", people(0, 0.1))]}, 50, 0).differences["b"]["s"]
    assert gap.value == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"evaluation_set": "f" * 64}, r"one is evaluated on the set eeee.* of 12 people, two on ffff.* of 12"),
        ({"resolution": 128}, r"one was evaluated with resolution None, two with 128"),
        ({"steps": 4}, "one was evaluated with steps 20, two with 4"),
        ({"judges": {"recogniser": {"sha256": "b"}}}, "judges.*two"),
    ],
)
def test_rows_under_other_conditions_are_refused_by_both_names(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_comparable([cell("one", people(0)), cell("two", people(0), **changed)])


def test_a_parameter_that_is_varied_may_differ() -> None:
    check_comparable([cell("one", people(0)), cell("two", people(0), steps=4)], ["steps"])


def test_the_table_of_latex_escapes_names_and_marks_differences() -> None:
    rows = {"dynamicid": [cell("a", people(0))], "ip_adapter": [cell("b", people(1, -0.2))]}
    figures: Figures = figures_of(rows, 200, 0)
    text = latex(figures, [], "Comparison on 12 held-out people.")
    assert r"ip\_adapter" in text
    assert r"expression\_accuracy" in text
    assert r"\toprule" in text
    line = next(line for line in text.splitlines() if line.startswith("s "))
    assert line.count("*") == 1
    assert "−" not in text, "pdflatex knows no Unicode minus"
