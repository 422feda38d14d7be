"""What was decided about a version, by whom and on what evidence: tags that are only ever added.

Decision n is the tag `dynamicid.decision.<n>`: one JSON object, so that it is there whole or not at all. The last one
says how the version stands; the ones before stay as they were written.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Kind = Literal["promoted", "refused", "not_asked", "rolled_back", "restored"]
GATES = "gates"
_TAG = re.compile(r"dynamicid\.decision\.(\d+)")


@dataclass(frozen=True)
class Decision:
    """One decision. `champion` is the version that held the alias before it; None where none did."""

    decision: Kind
    by: str  # `gates`, or the name of a person
    champion: str | None
    reasons: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    at: str = ""  # UTC, ISO 8601; written when the decision is


def decisions_of(version: Any) -> list[Decision]:
    """Return the decisions about a registered version, in the order in which they were taken."""
    found = {int(match[1]): json.loads(text) for key, text in version.tags.items() if (match := _TAG.fullmatch(key))}
    return [Decision(**{**plain, "reasons": tuple(plain["reasons"])}) for _, plain in sorted(found.items())]


def last_decision(version: Any) -> Decision | None:
    """Return how the version stands, or None where nothing was decided about it yet."""
    decisions = decisions_of(version)
    return decisions[-1] if decisions else None


def add_decision(client: Any, version: Any, decision: Decision) -> None:
    """Write `decision`, with the time, after the ones that `version` has. Hold the registry's lock."""
    present = client.get_model_version(version.name, version.version)
    number = 1 + max((int(match[1]) for key in present.tags if (match := _TAG.fullmatch(key))), default=0)
    plain = {**asdict(decision), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    text = json.dumps(plain, ensure_ascii=False)
    client.set_model_version_tag(version.name, version.version, f"dynamicid.decision.{number}", text)
