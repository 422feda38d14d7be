"""Describe expectations of Great Expectations as data, with their names in the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

FAIL: Literal["fail"] = "fail"
WARN: Literal["warn"] = "warn"
Severity = Literal["fail", "warn"]


@dataclass(frozen=True)
class Check:
    """An expectation: its class name and arguments.

    `name` is its name in the verdict, `parameter` the key of params.yaml that sets its bound, if any. With `severity`
    "fail" its failure fails the stage. For expectations on each value, a share `allowed` of them may violate it.
    `description` says in Data Docs what it protects, where its class does not.
    """

    name: str
    expectation: str
    arguments: dict[str, Any] = field(default_factory=dict)
    parameter: str | None = None
    severity: Severity = FAIL
    allowed: float | None = None
    description: str | None = None

    @property
    def column(self) -> str | None:
        """The column that is checked; None where the whole table is."""
        return self.arguments.get("column")

    @property
    def bound(self) -> dict[str, Any]:
        """The minimum and maximum allowed for the observed value, where they are set."""
        if self.allowed is not None:
            return {"maximum": self.allowed}
        pairs = (("minimum", self.arguments.get("min_value")), ("maximum", self.arguments.get("max_value")))
        return {key: value for key, value in pairs if value is not None}


def rows_between(name: str, *, minimum: int, maximum: int | None = None, parameter: str | None = None) -> Check:
    """Expect at least `minimum` and at most `maximum` rows."""
    arguments = {"min_value": minimum, "max_value": maximum}
    return Check(name, "ExpectTableRowCountToBeBetween", arguments, parameter)


def values(
    name: str,
    expectation: str,
    column: str,
    *,
    allowed: float = 0.0,
    parameter: str | None = None,
    severity: Severity = FAIL,
    description: str | None = None,
    **arguments: Any,
) -> Check:
    """Expect `expectation` of each value of `column`; a share `allowed` of the values may violate it."""
    mostly = round(1.0 - allowed, 9)
    arguments = {"column": column, "mostly": mostly, **arguments}
    return Check(name, expectation, arguments, parameter, severity, allowed, description)


def present(name: str, column: str, **options: Any) -> Check:
    """Expect values of `column` not to be null."""
    return values(name, "ExpectColumnValuesToNotBeNull", column, **options)


def between(name: str, column: str, minimum: float | None, maximum: float | None, **options: Any) -> Check:
    """Expect values of `column` within bounds, both included."""
    expectation = "ExpectColumnValuesToBeBetween"
    return values(name, expectation, column, min_value=minimum, max_value=maximum, **options)


def one_of(name: str, column: str, known: tuple[str, ...], **options: Any) -> Check:
    """Expect values of `column` to be in `known`."""
    return values(name, "ExpectColumnValuesToBeInSet", column, value_set=list(known), **options)


def aggregate(
    name: str, expectation: str, column: str, minimum: float, *, parameter: str | None = None, severity: Severity = FAIL
) -> Check:
    """Expect an aggregate of all values of `column` to be at least `minimum`."""
    return Check(name, expectation, {"column": column, "min_value": minimum}, parameter, severity)
