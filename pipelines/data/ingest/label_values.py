"""Read the labels of a photo from the keys of a JSON object or the cells of a table, whatever type they have."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from pipelines.data.ingest.photo_files import Labels, Skipped, Unmatched, is_picture_name, one_line
from pipelines.data.rights import as_text

# The keys of each label, the first that has a value wins. ConsistentID's facial captions describe identity (nose,
# hair), not expression and pose: they are no face prompts.
KEYS: dict[str, tuple[str, ...]] = {
    "identity": ("identity", "identity_id", "person", "person_id", "celebrity"),
    "prompt": ("prompt", "text", "caption", "vqa_llva", "vqa_llva_more_face_detail"),
    "face_prompt": ("face_prompt",),
    "source": ("source",),
    "licence": ("licence", "license"),
    "consent": ("consent",),
}
# A key that is, or has, one of these words, but is not one of KEYS, is reported where the label has no value.
_WORDS: dict[str, frozenset[str]] = {
    "identity": frozenset({"identity", "identities", "person", "people", "subject", "celebrity", "label"}),
    "licence": frozenset({"licence", "licences", "license", "licenses", "copyright", "rights"}),
    "consent": frozenset({"consent", "consents", "consented", "permission", "permissions"}),
}
_WHOLE: dict[str, frozenset[str]] = {
    "identity": frozenset({"name", "full_name", "who"}),
    "prompt": frozenset({"prompts", "texts", "captions", "txt", "description", "tags"}),
    "consent": frozenset({"opt_in", "opt_out", "model_release"}),
}
# The last word of keys that say something about a consent, not which it is: when, by whom, in which form.
_ABOUT = frozenset({"date", "time", "timestamp", "at", "by", "id", "form", "version", "url", "type", "text", "source"})
# What programs write for a missing value where a column has text; in CSV it is one, elsewhere it may be a name.
MISSING = frozenset({"nan", "NaN", "None", "null", "NULL", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaT"})
# Whole numbers beyond it are not exact in floating point: two people could become one.
_EXACT = 2**53
# Of several captions one is enough: the others are listed, and are no fault.
_READ = frozenset(key for keys in KEYS.values() for key in keys)
# How deep, and in how many items of a list, objects in a value are searched for labels that are not read there.
_DEPTH, _ITEMS = 4, 100
_MORE = "texts; the first is used"


class Several(list[object]):
    """The different values of a key that an object holds more than once."""


def merged(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Return an object of `pairs`; different values of one key become Several."""
    result: dict[str, object] = {}
    for key, value in pairs:
        earlier = result.get(key)
        if key not in result or earlier == value or earlier is None:
            result[key] = value
        elif value is not None:
            result[key] = Several([*(earlier if isinstance(earlier, Several) else [earlier]), value])
    return result


def normal_entry(entry: Mapping[Any, object]) -> dict[str, object]:
    """Return an entry with its keys in one form: "License ", "LICENSE" and "license" are the same key."""
    return merged(zip(map(_normal_key, entry), entry.values(), strict=True))


@lru_cache(maxsize=1024)
def _normal_key(key: object) -> str:
    return re.sub(r"[\s-]+", "_", str(key).strip("\ufeff \t").casefold())


@lru_cache(maxsize=1024)
def _resembles(label: str, key: str) -> bool:
    words = _WORDS.get(label, frozenset())
    return key in _WHOLE.get(label, ()) or not words.isdisjoint(re.split(r"[^a-z]+", key))


def names_label(key: str) -> bool:
    """Whether a key is, or resembles, that of an identity, licence, consent or source, and not of a text."""
    return any(key in KEYS[label] or _resembles(label, key) for label in ("identity", "source", "licence", "consent"))


def names_consent(key: str) -> bool:
    """Whether a key is, or resembles, that of a consent."""
    return key in KEYS["consent"] or _resembles("consent", key)


def is_shared(key: str, value: object) -> bool:
    """Whether a value beside a list of entries is a label of all of them, or an object that may hold one."""
    return key in _READ or names_consent(key) or _resembles("licence", key) or isinstance(value, Mapping)


def labels_of(entry: Mapping[str, object]) -> tuple[Labels, list[str]]:
    """Return the labels in an entry of `normal_entry`, and one sentence for each value that they do not hold."""
    values: dict[str, str | None] = {}
    problems: list[str] = []
    others = [(key, value) for key, value in entry.items() if key not in _READ]
    nested = [item for pair in others for item in _nested(*pair)]
    for label, keys in KEYS.items():
        key = next((key for key in keys if _is_given(label, entry.get(key))), None)
        given = None if key is None else entry[key]
        if key is not None:
            values[label], problem = _read(label, given)
            problems += [f"{key}: {problem}"] if problem else []
        elsewhere = {
            place: value
            for place, value in (*nested, *others)
            if _means(label, place, value, given) and _is_given(label, value) and not _same(value, given)
        }
        for place in elsewhere:
            expected = f"expected {label}{' at the top' if '.' in place else ''}"
            problems.append(f"{place} is not read; {expected if key is None else f'{key} is, and differs'}")
        if label == "consent" and elsewhere:
            values[label] = as_text(elsewhere if key is None else [given, elsewhere])
    return Labels(**values), problems


def _means(label: str, place: str, value: object, given: object) -> bool:
    """Whether a key in an object ("meta.consent") is that of a label, or a key resembles it.

    Where the label is `given`, keys that resemble it count for consents only, and for texts nothing does.
    """
    _, inside, key = place.rpartition(".")
    if given is not None and label != "consent":
        return bool(inside) and key in KEYS[label] and names_label(key)
    if given is not None and key.rpartition("_")[2] in _ABOUT:
        return False
    if inside and label != "consent":
        return key in KEYS[label]
    return (bool(inside) and key in KEYS[label]) or (_resembles(label, key) and not _is_picture(value))


def _same(value: object, given: object) -> bool:
    """Whether two values are the same text."""
    return " ".join(str(value).split()).casefold() == " ".join(str(given).split()).casefold()


def _nested(place: str, value: object, depth: int = 0) -> Iterator[tuple[str, object]]:
    """Yield the keys ("meta.consent") and values of objects in a value, also of an object that is JSON in a text."""
    if isinstance(value, (str, bytes)) and value[:1] in ("{", b"{") and depth == 0:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return
    if isinstance(value, Mapping) and depth < _DEPTH:
        for key, inner in value.items():
            name = f"{place}.{_normal_key(key)}"
            yield name, inner
            yield from _nested(name, inner, depth + 1)
    elif isinstance(value, list) and not isinstance(value, Several) and depth < _DEPTH:
        for inner in value[:_ITEMS]:
            if isinstance(inner, (Mapping, list)):
                yield from _nested(place, inner, depth + 1)


def _is_picture(value: object) -> bool:
    return isinstance(value, str) and is_picture_name(value)


def left_out(file_name: str, problem: str, label: str) -> Skipped:
    """Return a problem of `labels_of`: Skipped where a photo has more captions than one, else Unmatched."""
    return Skipped(label, problem) if problem.endswith(_MORE) else Unmatched(file_name, problem, label)


def _is_given(label: str, value: object) -> bool:
    """Whether a value is more than a gap. For a consent NaN is a value: it is no yes."""
    if label == "consent":
        return as_text(value) is not None
    if isinstance(value, float):
        return not math.isnan(value)
    if isinstance(value, str):
        return one_line(value) is not None
    return value is not None and value != []


def _read(label: str, value: object) -> tuple[str | None, str | None]:
    """Return the text of a label, or None, and what of the value it does not hold, or None."""
    if label in ("source", "licence", "consent"):
        return as_text(value), None
    rest = None
    if isinstance(value, list):
        if len(value) > 1 and label == "identity":
            return None, f"{len(value)} values; expected one name"
        rest = f"{len(value)} {_MORE}" if len(value) > 1 else None
        value = value[0]
    # Broken or infinite values are no names: they could make one person of several.
    broken = isinstance(value, str) and value != value.encode("utf-8", "ignore").decode("utf-8")
    text = None if broken and label == "identity" else _text(value)
    if text is None:
        return (
            None,
            f"a value of type {type(value).__name__} is not read; expected a text in valid Unicode or an exact number",
        )
    if text in MISSING:
        return None, f"{text!r} is what programs write for a missing value; expected null or a text"
    return text, rest


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    if isinstance(value, (float, Decimal)) and not math.isfinite(value):
        return None
    if isinstance(value, (float, Decimal)) and value == int(value):
        # A column of whole numbers with gaps comes as 11.0.
        return None if isinstance(value, float) and abs(value) >= _EXACT else str(int(value))
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        value = str(value)
    return one_line(value)
