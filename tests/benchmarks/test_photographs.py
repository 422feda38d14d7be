"""The table of the method on photographs: which claims the figures support, and what cannot be measured."""

from __future__ import annotations

from typing import Any

from benchmarks.photographs import happy_or_neutral, table_of
from model.face.face_prompts import EXPRESSIONS


def interval(value: float, width: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


def document(**changes: Any) -> dict[str, Any]:
    counts = [[0] * (len(EXPRESSIONS) + 1) for _ in EXPRESSIONS]
    # Neutral: 8 of 10 as asked, 1 as happy, 1 as sad; happy: 9 as asked, 1 without a face.
    counts[0][:3], counts[1][1], counts[1][-1] = [8, 1, 1], 9, 1
    return {
        "benchmark": {"seed": 3},
        "model": {"own_over_other": interval(0.3)},
        "normalised": {"model": {"id_similarity": interval(0.4)}, "text_only": {"id_similarity": interval(0.1)}},
        "comparisons": {"model_minus_without_imr": {"expression_accuracy": interval(0.1)}},
        "confusion": {"model": {"expression": counts}},
        **changes,
    }


def test_figures_that_hold() -> None:
    head, rule, row = table_of([document()]).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    assert row.startswith("| 3 | 0.40 (0.35 to 0.45) | 0.10 (0.05 to 0.15) | not measurable |")
    assert row.endswith(
        "above text only: yes; own over other ≥ 0.2: yes; happy or neutral ≥ 0.8: yes; the IMR helps: yes |"
    )


def test_what_cannot_be_measured_supports_no_claim() -> None:
    unknown = {"value": None, "reason": "the judge cannot tell people apart"}
    row = table_of([document(model={"own_over_other": unknown}, comparisons={}, confusion={})]).splitlines()[2]
    assert "own over other ≥ 0.2: no; happy or neutral ≥ 0.8: no; the IMR helps: no" in row


def test_intervals_that_overlap_are_no_difference() -> None:
    close = {"model": {"id_similarity": interval(0.15)}, "text_only": {"id_similarity": interval(0.1)}}
    assert "above text only: no" in table_of([document(normalised=close)])


def test_happy_against_neutral_counts_what_is_read_as_either() -> None:
    assert happy_or_neutral(document()) == 17 / 18
    assert happy_or_neutral(document(confusion={"model": {"expression": []}})) is None
