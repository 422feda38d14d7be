"""Decide which rows may be trained on, by the patterns of `rights` for their consent, licence and source."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from fnmatch import translate
from functools import lru_cache

from pipelines.core.sections.data import Rights, Term

# The columns that the policy checks, in this order.
COLUMNS: tuple[str, ...] = ("consent", "licence", "source")


@lru_cache(maxsize=256)
def _fits_any(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    joined = re.compile("|".join(translate(pattern.strip().casefold()) for pattern in patterns) or r"(?!)")
    return lambda value: joined.match(value) is not None


def refusal(rights: Rights, row: Mapping[str, object]) -> str | None:
    """Return why a row may not be trained on, such as "consent denied", or None where it may.

    `row` holds COLUMNS, each a string or None. The reason is a column's name and "unknown", "denied" or "not allowed".
    """
    for column in COLUMNS:
        term: Term = getattr(rights, column)
        value = row.get(column)
        text = " ".join(str(value).split()).casefold() if value is not None else ""
        if not text:
            if term.allow:
                return f"{column} unknown"
        elif _fits_any(term.deny)(text):
            return f"{column} denied"
        elif term.allow and not _fits_any(term.allow)(text):
            return f"{column} not allowed"
    return None


def describe_left_out(left_out: Mapping[str, int], kept: int) -> str:
    """Return one line: how many photos the policy left out, by reason."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    total = Counter(left_out).total()
    return f"{total} of {total + kept} photos may not be trained on, by `rights` of the parameters: {reasons}"
