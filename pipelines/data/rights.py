"""Decide which rows may be trained on, by the patterns of `rights` for their consent, licence and source."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from fnmatch import translate
from functools import lru_cache

from pipelines.core.sections.data import Rights

# The columns that the policy checks, in this order.
COLUMNS: tuple[str, ...] = ("consent", "licence", "source")
_REFUSED = ("consent denied", "consent not allowed")
COPY = "consent refused for the same photo elsewhere"
# A clear yes in the data, whatever `rights.consent.allow` lists: YAML would turn these words into something else.
_PLAIN_YES: tuple[str, ...] = ("yes", "true")


def as_text(value: object) -> str | None:
    """Return a consent, licence or source of any type as the text that a row keeps; None where nothing is given.

    Texts stay as they are, except that blank ones are None; other values become JSON.
    """
    if value is None or isinstance(value, str):
        # Lone surrogates (JSON's "\\ud83d") cannot be stored as UTF-8.
        return value.encode("utf-8", "replace").decode("utf-8") if value and value.strip() else None
    return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace").decode("utf-8")


def refusal(rights: Rights, row: Mapping[str, object]) -> str | None:
    """Return why a row may not be trained on, such as "consent not allowed", or None where it may.

    `row` holds COLUMNS, of any type. The reason is a column's name and "unknown", "denied" or "not allowed". A consent
    that is given must be a clear yes; `rights.consent.unknown` decides where there is none.
    """
    for column in COLUMNS:
        term = getattr(rights, column)
        text = " ".join((as_text(row.get(column)) or "").split()).casefold()
        allow = (*term.allow, *_PLAIN_YES) if column == "consent" else term.allow
        if not text:
            if rights.consent.unknown == "deny" if column == "consent" else term.allow:
                return f"{column} unknown"
        elif _fits_any(term.deny)(text):
            return f"{column} denied"
        elif allow and not _fits_any(allow)(text):
            return f"{column} not allowed"
    return None


def refused_photos(files: Iterable[str], rights: Rights) -> frozenset[str]:
    """Return the `image_id` of every photo whose consent a row of these Parquet files refuses.

    The same bytes may come several times, under other names: what one row refuses, no other row of them permits.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    photos: set[str] = set()
    for file in files:
        table = pq.read_table(file, columns=["image_id", "consent"])
        given = pc.unique(table["consent"].drop_null()).to_pylist()
        refused = [value for value in given if refusal(rights, {"consent": value}) in _REFUSED]
        if refused:
            photos.update(table.filter(pc.field("consent").isin(refused))["image_id"].to_pylist())
    return frozenset(photos)


def refusal_of(rights: Rights, row: Mapping[str, object], refused: Container[object]) -> str | None:
    """Return the `refusal` of a row, or COPY where its `image_id` is among `refused`, the photos that others refuse."""
    return refusal(rights, row) or (COPY if row["image_id"] in refused else None)


def describe_left_out(left_out: Mapping[str, int], kept: int) -> str:
    """Return one line: how many photos the policy left out, by reason."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    total = Counter(left_out).total()
    return f"{total} of {total + kept} photos may not be trained on, by `rights` of the parameters: {reasons}"


@lru_cache(maxsize=256)
def _fits_any(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    joined = re.compile("|".join(translate(pattern.strip().casefold()) for pattern in patterns) or r"(?!)")
    return lambda value: joined.match(value) is not None
