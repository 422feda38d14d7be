"""What was found of each expectation, free of times and places."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed
from pipelines.core.files import write_atomically
from pipelines.data.validation.check import FAIL, Severity


@dataclass(frozen=True)
class Finding:
    """One expectation: what it is about, what was observed, and the bound.

    For an expectation on each value `observed` is the share of values that break it, and `bound` the share allowed.
    """

    name: str
    expectation: str
    column: str | None
    success: bool
    observed: float | int | None
    bound: dict[str, Any]
    severity: Severity
    parameter: str | None

    def sentence(self) -> str:
        """Return "name observed < bound (parameter)", or > for a maximum."""
        known = "nothing" if self.observed is None else f"{self.observed:g}"
        low, high = self.bound.get("minimum"), self.bound.get("maximum")
        compared = f"< {low:g}" if low is not None and (self.observed is None or self.observed < low) else f"> {high}"
        column = f" in column {self.column}" if self.column else ""
        where = f" ({self.parameter})" if self.parameter else ""
        return f"{self.name}{column}: {known} {compared}{where}"


@dataclass(frozen=True)
class Outputs:
    """Where a verdict goes: `report` for `verdict.json`, `data_docs` for the HTML, or None for no HTML."""

    report: Path
    data_docs: Path | None = None


@dataclass(frozen=True)
class Verdict:
    """The findings of one stage; it succeeds where no expectation of severity `fail` failed."""

    stage: str
    rows: int
    findings: tuple[Finding, ...]

    @property
    def success(self) -> bool:
        """Whether the data may be used."""
        return not self.failures()

    def failures(self) -> list[Finding]:
        """Return the expectations that failed and must not."""
        return [item for item in self.findings if not item.success and item.severity == FAIL]

    def warnings(self) -> list[Finding]:
        """Return the expectations that failed and may."""
        return [item for item in self.findings if not item.success and item.severity != FAIL]

    def conclude(self, report: Path) -> None:
        """Write `report`/verdict.json (the same findings give the same bytes), and tell the warnings.

        Raises StageFailed naming every failed expectation with what was observed and its bound.
        """
        failed = self.failures()
        tree = {
            "success": self.success,
            "rows": self.rows,
            "failed": [item.name for item in failed],
            "warned": [item.name for item in self.warnings()],
            "expectations": [asdict(item) for item in self.findings],
        }
        write_atomically(report / "verdict.json", json.dumps(tree, indent=2) + "\n")
        for warning in self.warnings():
            print(f"{self.stage}: warning: {warning.sentence()}", file=sys.stderr)
        if failed:
            told = "; ".join(item.sentence() for item in failed)
            raise StageFailed(f"{self.stage}: {len(failed)} of {len(self.findings)} expectations failed: {told}")
