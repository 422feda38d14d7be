"""Words of messages: names that are spelt like a wrong one, and a number with its noun."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return at most `most` of `known` that are spelt like `word`, the most similar first; case does not count."""
    folded: dict[str, list[str]] = {}
    for one in dict.fromkeys(known):
        folded.setdefault(one.casefold(), []).append(one)
    near = difflib.get_close_matches(word.casefold(), folded, most)
    return [one for spelling in near for one in folded[spelling]][:most]


def did_you_mean(word: str, known: Iterable[str], most: int = 1) -> str:
    """Return "; did you mean anna, hanna?" with the nearest of `known`, or "" where none is similar."""
    near = nearest(word, known, most)
    return f"; did you mean {', '.join(near)}?" if near else ""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return "1 row", "2 rows", "2,765 people"."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
