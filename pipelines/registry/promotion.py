"""Moving the alias `champion`: by the gates, by a person, and back again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.registry.decisions import GATES, Decision, add_decision, decisions_of, last_decision
from pipelines.registry.registry import CHAMPION, champion_of, find_version, open_registry, registry_lock, versions_of


class ChampionMoved(Exception):
    """The champion is no longer the version that the challenger was compared with."""

    def __init__(self, compared: str | None, present: str | None) -> None:
        super().__init__(f"the champion is {shown(present)} now, the comparison was with {shown(compared)}")


@dataclass(frozen=True)
class Move:
    """What became of the alias: who has it now and who had it before."""

    model_name: str
    version: str
    decision: str
    champion: str | None
    before: str | None


def shown(version: str | None) -> str:
    """Return `v7`, or `none` where no version is meant."""
    return "none" if version is None else f"v{version}"


def decide(client: Any, version: Any, decision: Decision) -> Decision:
    """Write a decision of gates or person and move the alias where it promotes. Hold the registry's lock.

    `decision.champion` is the version that was compared with. Raises ChampionMoved, and changes nothing, where the
    alias is on another one by now.
    """
    present = _number(champion_of(client, version.name))
    if present != decision.champion:
        raise ChampionMoved(decision.champion, present)
    written = add_decision(client, version, decision)
    if decision.decision == "promoted":
        client.set_registered_model_alias(version.name, CHAMPION, version.version)
    return written


def finish_interrupted(client: Any, version: Any) -> None:
    """Move the alias where a process was killed between writing `promoted` and moving it. Hold the lock."""
    last = last_decision(version)
    present = _number(champion_of(client, version.name))
    if last is None or last.decision != "promoted" or present != last.champion or present == str(version.version):
        return
    # Who took the alias over from this version names it: then it had it, and a rollback brought the old champion back.
    later = (one for other in versions_of(client, version.name) for one in decisions_of(other))
    if not any(one.decision == "promoted" and one.champion == str(version.version) for one in later):
        client.set_registered_model_alias(version.name, CHAMPION, version.version)


def promote(root: Path, uri: str, *, by: str, reason: str | None = None, override_gates: bool = False) -> Move:
    """Make `uri` the champion on a person's word.

    The version must have been compared by `register`; with failed gates `override_gates` is needed, and the decision
    names each of them. Raises UserError on wrong use, StageFailed where gates failed or the champion is not the
    compared one any more.
    """
    person = _person(by)
    client = open_registry(root)
    with registry_lock(root):
        version = find_version(client, uri)
        finish_interrupted(client, version)
        present = _number(champion_of(client, version.name))
        if present == str(version.version):
            return Move(version.name, str(version.version), "promoted", present, _before(version))
        compared = _comparison(version)
        if failed := compared.evidence.get("failed_gates", []):
            told = f"{version.name} v{version.version} failed its gates: {'; '.join(failed)}"
            if not override_gates:
                raise StageFailed(f"{told}; `--override-gates` promotes it all the same, and says so in its tags")
        reasons = (*((reason,) if reason else ()), *(f"overridden: {line}" for line in failed))
        taken = replace(compared, decision="promoted", by=person, reasons=reasons)
        try:
            decide(client, version, taken)
        except ChampionMoved as moved:
            raise StageFailed(
                f"{version.name} v{version.version} is not promoted: {moved}; `dynamicid register` where it was "
                "trained (or in a folder made by `dynamicid reproduce`) compares again"
            ) from None
        return Move(version.name, str(version.version), "promoted", str(version.version), present)


def refuse(root: Path, uri: str, *, by: str, reason: str | None = None) -> Move:
    """Write down that a person refused `uri`; the champion stays. Raises UserError where `uri` is the champion."""
    person = _person(by)
    client = open_registry(root)
    with registry_lock(root):
        version = find_version(client, uri)
        finish_interrupted(client, version)
        present = _number(champion_of(client, version.name))
        if present == str(version.version):
            raise UserError(f"{uri}: this is the champion; `dynamicid rollback` puts an earlier one in its place")
        last = last_decision(version)
        if last is None or (last.decision, last.by) != ("refused", person):
            evidence = last.evidence if last else {}
            add_decision(client, version, Decision("refused", person, present, (reason,) if reason else (), evidence))
        return Move(version.name, str(version.version), "refused", present, present)


def rollback(root: Path, name: str, *, by: str, to: str | None = None, reason: str | None = None) -> Move:
    """Set the alias back to `to` (a URI), or to the version that was champion before the present one.

    Only a version that was promoted once can be gone back to. Raises UserError where there is none.
    """
    person = _person(by)
    client = open_registry(root)
    with registry_lock(root):
        present = champion_of(client, name)
        if present is None:
            raise UserError(f"{name}: no version has the alias {CHAMPION}, so there is nothing to roll back")
        target = find_version(client, to) if to is not None else _earlier(client, present)
        if target.name != name:
            raise UserError(f"{to}: this is a version of {target.name}, the champion is one of {name}")
        if str(target.version) == str(present.version):
            raise UserError(f"{to}: this is the champion already")
        if not any(one.decision == "promoted" for one in decisions_of(target)):
            raise UserError(f"{to}: v{target.version} was never champion; `dynamicid promote` is for new ones")
        why = (reason,) if reason else ()
        old, new = str(present.version), str(target.version)
        # The one that goes first: a process killed here leaves the champion where it was, and a second try moves it.
        if (last := last_decision(present)) is None or last.decision != "rolled_back":
            add_decision(client, present, Decision("rolled_back", person, old, why, {"to": new}))
        client.set_registered_model_alias(name, CHAMPION, new)
        add_decision(client, target, Decision("restored", person, old, why, {"from": old}))
        return Move(name, new, "restored", new, old)


def _number(version: Any | None) -> str | None:
    return None if version is None else str(version.version)


def _person(name: str) -> str:
    if not name.strip() or name.strip() == GATES:
        raise UserError(f"--by {name!r}: expected the name of the person who decides")
    return name.strip()


def _before(version: Any) -> str | None:
    promoted = [one for one in decisions_of(version) if one.decision == "promoted"]
    return promoted[-1].champion if promoted else None


def _comparison(version: Any) -> Decision:
    """Return the last decision that rests on a comparison by the gates."""
    compared = [one for one in decisions_of(version) if one.by == GATES and "gates" in one.evidence]
    if not compared:
        raise UserError(
            f"models:/{version.name}/{version.version}: its gates were never judged; `dynamicid register` does that"
        )
    return compared[-1]


def _earlier(client: Any, present: Any) -> Any:
    before = _before(present)
    if before is None:
        raise UserError(
            f"{present.name} v{present.version}: there was no champion before it; --to names one that was promoted"
        )
    return find_version(client, f"models:/{present.name}/{before}")
