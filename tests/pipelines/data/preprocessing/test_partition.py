"""Buckets and splits are stable, by person, and near the requested shares."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from pipelines.data.preprocessing.partition import bucket_bounds, partition_hash, split_of


def test_photos_of_a_person_stay_together_and_unknown_ones_spread() -> None:
    assert partition_hash("anna", "1") == partition_hash("anna", "2")
    assert partition_hash(None, "1") != partition_hash(None, "2")
    assert partition_hash(None, "anna") != partition_hash("anna", "anna")
    assert partition_hash("anna", "") == 1810580884354145319


@pytest.mark.parametrize("buckets", [1, 3, 4, 256])
def test_buckets_divide_the_whole_range(buckets: int) -> None:
    bounds = [bucket_bounds(bucket, buckets) for bucket in range(buckets)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 2**63 - 1
    assert all(high + 1 == low for (_, high), (low, _) in pairwise(bounds))
    counts = Counter(partition_hash(f"person {index}", "") * buckets >> 63 for index in range(2000))
    assert max(counts.values()) < 2.5 * 2000 / buckets + 20


def test_splits_are_by_person_and_unknown_people_are_never_held_out() -> None:
    people = [f"person {index}" for index in range(4000)]
    splits = Counter(split_of(person, 0.15, 0.05) for person in people)
    assert splits["test"] / 4000 == pytest.approx(0.15, abs=0.02)
    assert splits["val"] / 4000 == pytest.approx(0.05, abs=0.012)
    # A larger share holds out the same people and others in addition.
    assert all(split_of(person, 0.3, 0.0) == "test" for person in people if split_of(person, 0.15, 0.05) == "test")
    assert {split_of(None, 0.9, 0.05) for _ in range(10)} == {"train"}
