"""Where the windows of a picture of several people are: one square for each, beside each other, partly shared."""

from __future__ import annotations

import math

# Of a window's side, what two neighbours share of it: in a picture as wide as `width_in_windows` says, and at most.
_SHARED, _MOST_SHARED = 0.25, 0.5


def width_in_windows(people: int, side: int) -> int:
    """Return the width in pixels, a multiple of 8, of a picture with a window of `side` pixels for each of `people`."""
    return math.ceil(side * (people - (people - 1) * _SHARED) / 8) * 8


def window_lefts(people: int, width: int, side: int) -> list[int]:
    """Return where each person's window of `side` begins, evenly spread over `width`, in the same unit.

    Raise ValueError where windows would leave a gap, or share more than half of themselves with a neighbour.
    """
    if people < 2:
        raise ValueError(f"windows for {people} person: expected at least 2 people; one person fills a picture")
    step = (width - side) / (people - 1)
    if not side * (1 - _MOST_SHARED) <= step <= side:
        least = 1 + (people - 1) * (1 - _MOST_SHARED)
        raise ValueError(
            f"windows for {people} people in a picture {width / side:g} times as wide as high: expected from "
            f"{least:g} to {people} times"
        )
    return [round(place * step) for place in range(people)]
