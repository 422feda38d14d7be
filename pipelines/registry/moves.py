"""Moves of the alias `champion`, which are finished after a kill and never overwrite what a person set meanwhile.

The registry can move an alias only without asking what it was. So a move writes first, as a tag of the version that it
makes champion, what it is about to do: from which champion, and the decisions to add. Then it moves the alias, only if
the champion is still that one, adds the decisions, and removes the tag. Whoever comes next finishes a tag that is left.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pipelines.registry.decisions import Decision, add_decision, decision_of, decisions_of
from pipelines.registry.faults import TrackingFault
from pipelines.registry.registry import CHAMPION, NOT_THERE, champion_number, versions_of
from pipelines.registry.tracking import Tracking

_MOVING = "dynamicid.moving"


@dataclass(frozen=True)
class AliasMove:
    """The alias goes from version `before` (None: there was no champion) to version `to`; decisions by version."""

    to: str
    before: str | None
    decisions: tuple[tuple[str, Decision], ...]


class ChampionMoved(Exception):
    """The champion changed after the comparison."""

    def __init__(self, compared: str | None, present: str | None) -> None:
        super().__init__(f"the champion is {shown(present)} now, the comparison was with {shown(compared)}")


def shown(version: str | None) -> str:
    """Return the number as `v7`, or `none` for no version."""
    return "none" if version is None else f"v{version}"


def move_champion(
    client: Tracking, name: str, to: str, before: str | None, decisions: Sequence[tuple[str, Decision]]
) -> None:
    """Make version `to` the champion in place of `before`, and add the decisions. The caller holds the lock.

    Raises ChampionMoved, and adds nothing, where the champion is no longer `before`.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    plain = [[version, {**asdict(decision), "at": at}] for version, decision in decisions]
    text = json.dumps({"before": before, "decisions": plain}, ensure_ascii=False)
    client.set_model_version_tag(name, to, _MOVING, text)
    _carry_out(client, name, _read(to, text))


def finish_moves(client: Tracking, name: str) -> AliasMove | None:
    """Finish what a killed process began and return it; None where there is nothing. The caller holds the lock.

    Where a person has set the alias to another version since then, it stays there.
    """
    for version in versions_of(client, name):
        if _MOVING in version.tags:
            move = _read(str(version.version), version.tags[_MOVING])
            try:
                _carry_out(client, name, move)
            except ChampionMoved:
                continue
            return move
    return None


def _carry_out(client: Tracking, name: str, move: AliasMove) -> None:
    present = champion_number(client, name)
    if present == move.before:
        client.set_registered_model_alias(name, CHAMPION, move.to)
    elif present != move.to:
        client.delete_model_version_tag(name, move.to, _MOVING)
        raise ChampionMoved(move.before, present)
    for number, decision in move.decisions:
        try:
            version = client.get_model_version(name, number)
        except TrackingFault as fault:
            if fault.code not in NOT_THERE or number == move.to:
                raise
            continue  # a person deleted the version that was champion before
        if decision not in decisions_of(version):
            add_decision(client, version, decision)
    client.delete_model_version_tag(name, move.to, _MOVING)


def _read(to: str, text: str) -> AliasMove:
    plain = json.loads(text)
    return AliasMove(to, plain["before"], tuple((number, decision_of(one)) for number, one in plain["decisions"]))
