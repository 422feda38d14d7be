"""Which rows may be trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import load_params
from pipelines.core.sections.data import Rights, Term
from pipelines.data.rights import refusal


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, None),
        ({"consent": "research", "licence": None, "source": "studio"}, None),
        ({"consent": " Refused "}, "consent denied"),
        ({"consent": "withdrawn on paper"}, "consent denied"),
        ({"consent": "not refused"}, None),
    ],
)
def test_by_default_only_what_was_refused_is_left_out(row: dict[str, str], expected: str | None) -> None:
    assert refusal(Rights(), row) == expected


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
