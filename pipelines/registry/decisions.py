"""Decisions about a registered version, with author and evidence, as tags that are added and never changed.

Decision n is the tag `dynamicid.decision.<n>`, one JSON object, so that it is written whole or not at all. The last
decision is the valid one.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pipelines.core.pages import markdown_table
from pipelines.registry.faults import TrackingFault
from pipelines.registry.registry import made_from, versions_of

Kind = Literal["promoted", "refused", "not_asked", "rolled_back", "restored"]
GATES = "gates"
_HISTORY = "## History of the alias champion"
_COLUMNS = ("at (UTC)", "version", "decision", "by", "champion before", "reasons")
_TAG = re.compile(r"dynamicid\.decision\.(\d+)")


@dataclass(frozen=True)
class Decision:
    """One decision; `champion` is the version that had the alias before, or None."""

    decision: Kind
    by: str  # `gates`, or the name of a person
    champion: str | None
    reasons: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    at: str = ""  # UTC, ISO 8601; set by add_decision


@dataclass(frozen=True)
class Figures:
    """An evaluation of a version's adapter: the key of the result (`StageResult.key`) and its MLflow run, if known."""

    key: str | None
    run_id: str | None


def decisions_of(version: Any) -> list[Decision]:
    """Return the decisions about a registered version, oldest first."""
    found = {int(match[1]): json.loads(text) for key, text in version.tags.items() if (match := _TAG.fullmatch(key))}
    return [decision_of(plain) for _, plain in sorted(found.items())]


def decision_of(plain: dict[str, Any]) -> Decision:
    """Return the decision that was written as the JSON object `plain`."""
    return Decision(**{**plain, "reasons": tuple(plain["reasons"])})


def last_decision(version: Any) -> Decision | None:
    """Return the valid decision, or None where there is none yet."""
    decisions = decisions_of(version)
    return decisions[-1] if decisions else None


def judged_figures(version: Any) -> Figures:
    """Return the figures that the gates judged last: those of the registration, or of a later evaluation."""
    evidence = next((one.evidence for one in reversed(decisions_of(version)) if "gates" in one.evidence), {})
    tags = version.tags
    return Figures(
        evidence.get("lock_hash") or made_from(tags).stages.get("evaluate"),
        evidence.get("evaluate_run") or tags.get("dynamicid.evaluate_run"),
    )


def add_decision(client: Any, version: Any, decision: Decision) -> None:
    """Add `decision`, with the time unless it has one, to the tags of `version`. The caller holds the lock."""
    present = client.get_model_version(version.name, version.version)
    number = 1 + max((int(match[1]) for key in present.tags if (match := _TAG.fullmatch(key))), default=0)
    plain = {**asdict(decision), "at": decision.at or datetime.now(UTC).isoformat(timespec="seconds")}
    text = json.dumps(plain, ensure_ascii=False)
    client.set_model_version_tag(version.name, version.version, f"dynamicid.decision.{number}", text)
    with suppress(TrackingFault):  # who may tag a version may perhaps not describe the model
        _describe(client, version.name)


def _describe(client: Any, name: str) -> None:
    """Write the history of the alias `champion` into the description of the model `name`, below what a person wrote.

    MLflow keeps only where an alias is now.
    """
    decided = [(one.at, str(found.version), one) for found in versions_of(client, name) for one in decisions_of(found)]
    rows = [
        (
            *(at[:19].replace("T", " "), f"v{number}", one.decision.replace("_", " ")),
            *(one.by, _shown(one.champion), "; ".join(one.reasons)),
        )
        for at, number, one in sorted(decided, key=lambda row: (row[0], int(row[1])))
        if one.decision != "not_asked"
    ]
    own = (client.get_registered_model(name).description or "").partition(_HISTORY)[0].rstrip()
    client.update_registered_model(name, f"{own}\n\n{_HISTORY}\n\n{markdown_table(_COLUMNS, rows)}".lstrip())


def _shown(version: str | None) -> str:
    return "none" if version is None else f"v{version}"
