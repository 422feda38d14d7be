"""Define the verdict of a validation stage: the result of each expectation, without times and paths."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed
from pipelines.core.files import write_atomically
from pipelines.core.words import counted
from pipelines.data.validation.check import FAIL, Severity

VERDICT = "verdict.json"


@dataclass(frozen=True)
class ExpectationResult:
    """The result of one expectation: the observed value and its bound.

    For an expectation on each value, `observed` is the share of values that violate it, `bound` the share allowed.
    """

    name: str
    expectation: str
    column: str | None
    success: bool
    observed: float | int | None
    bound: dict[str, Any]
    severity: Severity
    parameter: str | None

    def describe(self) -> str:
        """Return "name in column …: observed < bound (parameter)", or "> bound" for a maximum."""
        observed = "nothing" if self.observed is None else f"{self.observed:g}"
        low, high = self.bound.get("minimum"), self.bound.get("maximum")
        compared = f"< {low:g}" if low is not None and (self.observed is None or self.observed < low) else f"> {high}"
        compared = compared if self.bound else "is not what was expected"
        column = f" in column {self.column}" if self.column else ""
        where = f" ({self.parameter})" if self.parameter else ""
        return f"{self.name}{column}: {observed} {compared}{where}"


@dataclass(frozen=True)
class Outputs:
    """`report`: the folder of `verdict.json`; `data_docs`: the folder of the HTML, or None for no HTML."""

    report: Path
    data_docs: Path | None = None


@dataclass(frozen=True)
class Verdict:
    """The results of one stage, which succeeds where no expectation of severity `fail` failed."""

    stage: str
    rows: int
    results: tuple[ExpectationResult, ...]

    @property
    def success(self) -> bool:
        """Whether the data may be used."""
        return not self.failures()

    def failures(self) -> list[ExpectationResult]:
        """Return the failed expectations of severity `fail`."""
        return [item for item in self.results if not item.success and item.severity == FAIL]

    def warnings(self) -> list[ExpectationResult]:
        """Return the failed expectations of severity `warn`."""
        return [item for item in self.results if not item.success and item.severity != FAIL]

    def summary(self) -> str:
        """Return the verdict in one line: how many rows and expectations, or which required ones failed."""
        if failed := self.failures():
            listed = "; ".join(item.describe() for item in failed)
            return f"{self.stage}: {len(failed)} of {len(self.results)} expectations failed: {listed}"
        judged = counted(len(self.results), "expectation")
        return f"{self.stage}: {counted(self.rows, 'row')}, {judged}, all required ones hold"

    def warning_lines(self) -> list[tuple[str, str]]:
        """Return a line for each warning, with the word that Data Docs colour it by."""
        return [("warning", f"{self.stage}: warning: {item.describe()}") for item in self.warnings()]

    def text(self) -> str:
        """Return the contents of `verdict.json`: equal results give equal bytes."""
        tree = {
            "success": self.success,
            "rows": self.rows,
            "failed": [item.name for item in self.failures()],
            "warned": [item.name for item in self.warnings()],
            "expectations": [asdict(item) for item in self.results],
        }
        return json.dumps(tree, indent=2) + "\n"

    def conclude(self, report: Path) -> None:
        """Write `report`/verdict.json and print the warnings.

        Raises StageFailed, which names every failed expectation of severity `fail` with its observed value and bound.
        """
        write_atomically(report / VERDICT, self.text())
        for _, line in self.warning_lines():
            print(line, file=sys.stderr)
        if self.failures():
            raise StageFailed(self.summary())
