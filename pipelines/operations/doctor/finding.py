"""What `doctor` finds: one subject, how it stands, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "warning", "stop"]


@dataclass(frozen=True)
class CheckResult:
    """One subject, such as `java`. `stop`: the chain cannot reach its end; `stages`: those that end, () for all."""

    subject: str
    level: Level
    text: str
    mend: str = ""
    stages: tuple[str, ...] = ()


def stops(findings: list[CheckResult], stages: tuple[str, ...] = ()) -> list[CheckResult]:
    """Return the findings that stop one of these stages (none given: any)."""
    wanted = set(stages)
    return [
        one for one in findings if one.level == "stop" and (not wanted or not one.stages or wanted & set(one.stages))
    ]


def in_one_line(findings: list[CheckResult]) -> str:
    """Return what is wrong and what to do, for an error."""
    return "; ".join(f"{one.subject}: {one.text}; {one.mend}" if one.mend else one.text for one in findings)
