"""Describe expectations of Great Expectations as data, with their names in the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

FAIL: Literal["fail"] = "fail"
WARN: Literal["warn"] = "warn"
Severity = Literal["fail", "warn"]


@dataclass(frozen=True)
class Check:
    """An expectation: its class (of Great Expectations by name, or one of your own) and arguments.

    `name` is its name in the verdict, `protects` says in a sentence what goes wrong without it, `parameter` is the key
    of params.yaml that sets its bound, if any. With `severity` "fail" its failure fails the stage. For expectations on
    each value, a share `allowed` of them may violate it. `origin`: the file that defines it, where it is a team's own.
    """

    name: str
    expectation: str | type
    protects: str
    arguments: dict[str, Any] = field(default_factory=dict)
    parameter: str | None = None
    severity: Severity = FAIL
    allowed: float | None = None
    origin: str | None = None

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


def rows_between(
    name: str, protects: str, *, minimum: int, maximum: int | None = None, parameter: str | None = None
) -> Check:
    """Expect at least `minimum` and at most `maximum` rows."""
    arguments = {"min_value": minimum, "max_value": maximum}
    return Check(name, "ExpectTableRowCountToBeBetween", protects, arguments, parameter)


def values(
    name: str,
    expectation: str,
    column: str,
    protects: str,
    *,
    allowed: float = 0.0,
    parameter: str | None = None,
    severity: Severity = FAIL,
    **arguments: Any,
) -> Check:
    """Expect `expectation` of each value of `column`; a share `allowed` of the values may violate it."""
    mostly = round(1.0 - allowed, 9)
    arguments = {"column": column, "mostly": mostly, **arguments}
    return Check(name, expectation, protects, arguments, parameter, severity, allowed)


def present(name: str, column: str, protects: str, **options: Any) -> Check:
    """Expect values of `column` not to be null."""
    return values(name, "ExpectColumnValuesToNotBeNull", column, protects, **options)


def between(
    name: str, column: str, minimum: float | None, maximum: float | None, protects: str, **options: Any
) -> Check:
    """Expect values of `column` within bounds, both included."""
    expectation = "ExpectColumnValuesToBeBetween"
    return values(name, expectation, column, protects, min_value=minimum, max_value=maximum, **options)


def one_of(name: str, column: str, known: tuple[str, ...], protects: str, **options: Any) -> Check:
    """Expect values of `column` to be in `known`."""
    return values(name, "ExpectColumnValuesToBeInSet", column, protects, value_set=list(known), **options)


def aggregate(
    name: str,
    expectation: str,
    column: str,
    minimum: float,
    protects: str,
    *,
    parameter: str | None = None,
    severity: Severity = FAIL,
) -> Check:
    """Expect an aggregate of all values of `column` to be at least `minimum`."""
    return Check(name, expectation, protects, {"column": column, "min_value": minimum}, parameter, severity)
