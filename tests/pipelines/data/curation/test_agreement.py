"""Pairs that both call one person, over pairs that either does."""

from __future__ import annotations

import pytest

from pipelines.data.curation.agreement import pairwise


def test_the_same_partition_by_other_names_agrees() -> None:
    assert pairwise(["x", "x", "y"], ["a", "a", "b"]).f1 == 1.0


def test_joined_people_cost_precision_and_parted_ones_recall() -> None:
    joined = pairwise(["x"] * 4, ["a", "a", "b", "b"])
    assert (joined.precision, joined.recall) == (pytest.approx(2 / 6), 1.0)
    parted = pairwise(["x", "x", "y", "z"], ["a", "a", "a", "a"])
    assert (parted.precision, parted.recall) == (1.0, pytest.approx(1 / 6))
    assert parted.f1 == pytest.approx(2 / 7)


def test_what_was_found_to_be_nobody_pairs_with_nothing() -> None:
    found = pairwise([None, None, "x", "x"], ["a", "a", "b", "b"])
    assert (found.precision, found.recall) == (1.0, 0.5)
