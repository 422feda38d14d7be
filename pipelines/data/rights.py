"""Decide which rows may be trained on, by the patterns of `rights` for their consent, licence and source."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING

from pipelines.core.sections.data import Rights
from pipelines.core.words import counted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

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
        text = compared(row.get(column))
        allow = consents_allowed(rights) if column == "consent" else term.allow
        if not text:
            if rights.consent.unknown == "deny" if column == "consent" else term.allow:
                return f"{column} unknown"
        elif _fits_any(term.deny)(text):
            return f"{column} denied"
        elif allow and not _fits_any(allow)(text):
            return f"{column} not allowed"
    return None


def refusals(rights: Rights, rows: pa.Table) -> pa.Array:
    """Return the `refusal` of each row of a table with COLUMNS; each combination of values is judged once."""
    import numpy as np
    import pyarrow as pa

    columns = [rows[name].combine_chunks().dictionary_encode() for name in COLUMNS]
    codes = np.zeros(rows.num_rows, np.int64)
    for column in columns:
        codes = codes * (len(column.dictionary) + 1) + column.indices.fill_null(-1).to_numpy() + 1
    _, first, combination = np.unique(codes, return_index=True, return_inverse=True)
    found = [refusal(rights, row) for row in rows.select(COLUMNS).take(first).to_pylist()]
    return pa.array(found, pa.string()).take(pa.array(combination))


def refuses_photo(reasons: pa.Array) -> pa.Array:
    """Return whether each of `refusals` holds for every row of the photo: that of a consent which is given does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(reasons, pa.array(_REFUSED))


def compared(value: object) -> str:
    """Return the text of a consent, licence or source in the form that is compared with patterns; "" for none."""
    return " ".join((as_text(value) or "").split()).casefold()


def consents_allowed(rights: Rights) -> tuple[str, ...]:
    """Return the shell patterns of all consents that are a yes: those of the policy, and a plain yes."""
    return (*rights.consent.allow, *_PLAIN_YES)


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


def photos_refused(photos: Sequence[object] | np.ndarray, reasons: Sequence[str | None]) -> dict[str, int]:
    """Return how many photos may not be trained on, each counted once, by the reason that the first such row gives.

    `photos` has the photo of each row, `reasons` its `refusal`. A consent that refuses holds for all rows of a photo;
    for other reasons, a photo is refused where none of its rows is permitted.
    """
    import numpy as np
    import pandas as pd

    rows = pd.DataFrame({"photo": photos, "reason": np.array(reasons, dtype=object)})
    permitted = rows.loc[rows["reason"].isna(), "photo"]
    by_consent = rows[rows["reason"].isin(_REFUSED)]
    refused = pd.concat([by_consent, rows[~rows["photo"].isin(permitted)]]).drop_duplicates("photo")
    return {str(reason): int(count) for reason, count in refused["reason"].value_counts().sort_index().items()}


def describe_left_out(left_out: Mapping[str, int], kept: int) -> str:
    """Return one line: how many photos the policy left out, by reason."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    total = Counter(left_out).total()
    return (
        f"{total} of {counted(total + kept, 'photo')} may not be trained on, by `rights` of the parameters: {reasons}"
    )


@lru_cache(maxsize=256)
def _fits_any(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    joined = re.compile("|".join(translate(pattern.strip().casefold()) for pattern in patterns) or r"(?!)")
    return lambda value: joined.match(value) is not None
