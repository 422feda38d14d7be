"""Which rows may be trained on."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import load_params
from pipelines.core.sections.data import Consent, Rights, Term
from pipelines.data.rights import as_text, photos_refused, refusal

GIVEN = (
    *(
        "pending",
        "no",
        "No",
        "nein",
        "research",
        "not granted",
        "granted?",
        "unknown",
        "null",
        "0",
        "1",
        "ja",
        "\u200byes",
    ),
    *(0, 1, 1.0, False, math.nan, [], {}, ["yes"], [True], {"research": True}, {"granted": "yes"}, date(2026, 1, 1)),
)


@pytest.mark.parametrize("value", GIVEN, ids=repr)
@pytest.mark.parametrize("rights", [Rights(), Rights(consent=Consent(allow=(), deny=()))], ids=["default", "empty"])
def test_a_consent_that_is_given_and_no_clear_yes_is_refused(value: object, rights: Rights) -> None:
    assert refusal(rights, {"consent": value}) == "consent not allowed"
    assert refusal(rights, {"consent": as_text(value)}) == "consent not allowed"


@pytest.mark.parametrize("value", ["yes", " Yes ", "TRUE", True, "granted", "Given\n", "consented"], ids=repr)
def test_a_clear_yes_is_permitted(value: object) -> None:
    assert refusal(Rights(consent=Consent(unknown="deny")), {"consent": value}) is None


def test_what_counts_as_yes_is_a_list_and_a_plain_yes_in_the_data_is_always_among_it() -> None:
    rights = Rights(consent=Consent(allow=("signed 20*",), deny=("signed 2019",)))
    found = {text: refusal(rights, {"consent": text}) for text in ("signed 2021", "signed 2019", "granted", "yes")}
    assert found == {
        "signed 2021": None,
        "signed 2019": "consent denied",
        "granted": "consent not allowed",
        "yes": None,
    }


@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_consent_at_all_is_decided_by_the_parameter(value: str | None) -> None:
    assert refusal(Rights(), {"consent": value}) is None
    assert refusal(Rights(consent=Consent(unknown="deny")), {"consent": value}) == "consent unknown"


@pytest.mark.parametrize(("value", "expected"), [(" Refused ", "denied"), ("withdrawn on paper", "denied")])
def test_denied_patterns(value: str, expected: str) -> None:
    assert refusal(Rights(), {"consent": value}) == f"consent {expected}"


@pytest.mark.parametrize("pattern", ["*", "?*", "n*", "no", " FALSE"])
def test_a_pattern_that_also_matches_a_no_is_refused(project: Path, pattern: str) -> None:
    with pytest.raises(UserError, match=r"rights\.consent\.allow.*also matches values that are no yes"):
        load_params(project / "profiles" / "tiny.yaml", [f"rights.consent.allow=['{pattern}']"])


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("CC-BY-4.0", None),
        ("cc0", None),
        ("CC-BY-NC-4.0", "licence denied"),
        ("proprietary", "licence not allowed"),
        (None, "licence unknown"),
        ("  ", "licence unknown"),
    ],
)
def test_allowed_and_denied_patterns(licence: str | None, expected: str | None) -> None:
    rights = Rights(licence=Term(allow=("cc-by*", "cc0"), deny=("*-nc-*",)))
    assert refusal(rights, {"consent": "yes", "licence": licence}) == expected


def test_a_value_is_required_where_any_is_allowed() -> None:
    rights = Rights(source=Term(allow=("*",)))
    assert refusal(rights, {"source": None}) == "source unknown"
    assert refusal(rights, {"source": "a"}) is None


def test_the_policy_is_typed(project: Path) -> None:
    file = project / "profiles" / "tiny.yaml"
    assert load_params(file, ["rights.licence.allow=[cc0]"]).rights.licence.allow == ("cc0",)
    with pytest.raises(UserError, match=r"unknown key rights\.license"):
        load_params(file, ["rights.license.allow=[cc0]"])
    with pytest.raises(UserError, match=r"rights\.consent\.allow"):
        load_params(file, ["rights.consent.allow=yes"])


def test_a_photo_is_counted_once_and_refused_by_any_consent_of_its_rows() -> None:
    rows = {
        "a": [None, "consent denied", "licence denied"],
        "b": ["consent not allowed", "consent not allowed"],
        "c": ["licence denied", None],
        "d": ["licence denied", "source unknown"],
        "e": [None],
        "f": ["consent unknown", None],
    }
    photos, reasons = zip(*((photo, reason) for photo, each in rows.items() for reason in each), strict=True)
    assert photos_refused(photos, reasons) == {"consent denied": 1, "consent not allowed": 1, "licence denied": 1}
    assert photos_refused([], []) == {}
