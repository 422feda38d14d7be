"""Where the windows of several people are."""

from __future__ import annotations

import pytest

from model.network.windows import width_in_windows, window_lefts


@pytest.mark.parametrize(
    ("people", "width", "lefts"), [(2, 28, [0, 12]), (3, 40, [0, 12, 24]), (4, 64, [0, 16, 32, 48]), (2, 24, [0, 8])]
)
def test_windows_are_spread_evenly(people: int, width: int, lefts: list[int]) -> None:
    assert window_lefts(people, width, 16) == lefts


@pytest.mark.parametrize("width", [23, 33])
def test_windows_that_leave_a_gap_or_share_too_much_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match=r"2 people in a picture .* expected from 1.5 to 2 times"):
        window_lefts(2, width, 16)


def test_one_person_has_no_window() -> None:
    with pytest.raises(ValueError, match="1 person: expected at least 2"):
        window_lefts(1, 16, 16)


def test_a_picture_is_as_wide_as_windows_that_share_a_quarter() -> None:
    assert [width_in_windows(people, 64) for people in (2, 3, 4)] == [112, 160, 208]
    assert width_in_windows(2, 504) == 888  # of 882, the next multiple of 8
    for people in (2, 3, 4, 6):
        assert len(window_lefts(people, width_in_windows(people, 64) // 8, 8)) == people
