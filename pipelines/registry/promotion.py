"""Promotion of an adapter to champion, by the gates or by a person, and rollback.

    register    finds or logs the version, compares it with the champion, decides, and moves the alias
    promote     makes a version champion by a person's decision
    refuse      records a person's decision against a version
    rollback    moves the alias back to an earlier champion

Decisions and the alias change under the registry's lock. A comparison may draw pictures for minutes, so it is made
without the lock; a decision then checks that the champion is still the one that was compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params
from pipelines.core.weights.licences import licence_faults, networks_of_adapter
from pipelines.registry.champion_metrics import champion_metrics, figures_problem, files_problem
from pipelines.registry.decisions import (
    GATES,
    Decision,
    Figures,
    add_decision,
    decisions_of,
    judged_figures,
    last_decision,
)
from pipelines.registry.gates import judge
from pipelines.registry.log_model import Challenger, find_or_log
from pipelines.registry.moves import ChampionMoved, finish_moves, move_champion
from pipelines.registry.recorder import record_stage
from pipelines.registry.registry import (
    CHAMPION,
    champion_number,
    champion_of,
    find_version,
    open_registry,
    registry_lock,
)
from pipelines.registry.runs import leave_address

# Maximum number of comparisons when other runs change the champion during each one.
_ATTEMPTS = 5


@dataclass(frozen=True)
class Registration:
    """The state of an adapter in the registry.

    `evaluate_run` is the MLflow run with the figures of the decision, `evaluated_before` that of the figures which were
    judged before, where the adapter was registered already and has been evaluated again.
    """

    model_name: str
    version: str
    created: bool
    decision: str  # promoted, refused or not_asked; rolled_back or restored after a rollback
    failed_gates: tuple[str, ...]
    champion: str | None
    compared_with: str | None
    by: str
    evaluate_run: str | None
    evaluated_before: str | None
    already: bool = False  # the decision is an earlier one: the gates were not judged this time


@dataclass(frozen=True)
class Move:
    """A decision of a person, with the champion after and before it; `already`: the promoted one was champion."""

    model_name: str
    version: str
    decision: str
    champion: str | None
    before: str | None
    already: bool = False


def register(params: Params, challenger: Challenger) -> Registration:
    """Register the adapter as `challenger`, and promote it to `champion` where it passes the gates.

    Idempotent: an adapter that is registered with this evaluation set (by hashes) keeps its version, and its decision
    as long as its figures are the ones judged. It is compared again where it has been evaluated again, or where neither
    the gates promoted it nor a person decided, and the champion has changed or `register.promote` was turned on.
    Without a champion only the absolute bounds apply. With `register.promote` off, and where a person has decided about
    the version before, the gates' results are recorded, the champion stays, and `promote` can follow.
    """
    client = open_registry(challenger.root)
    with registry_lock(challenger.root):
        finish_moves(client, params.register_.model_name)
        version, created = find_or_log(client, params, challenger)
        before, figures = judged_figures(version), _figures(version, params, challenger)
    leave_address(client, version.run_id)
    for attempt in range(_ATTEMPTS):
        version = client.get_model_version(version.name, version.version)
        if (decision := _valid_decision(client, version, params.register_.promote, figures)) is not None:
            state = _state(client, version, decision)
            before_run = None if before == figures else before.run_id
            state = replace(state, created=created, already=not attempt)
            return replace(state, evaluate_run=figures.run_id, evaluated_before=before_run)
        decision = compare(client, version, params, challenger, figures)
        with registry_lock(challenger.root), contextlib.suppress(ChampionMoved):
            _decide(client, version, decision)
    raise StageFailed(
        f"{version.name} v{version.version}: the champion changed during each of {_ATTEMPTS} comparisons; run again"
    )


def present_state(client: Any, version: Any) -> Registration | None:
    """Return the state of a registered version; None where nothing was decided about it yet."""
    decision = last_decision(version)
    return None if decision is None else replace(_state(client, version, decision), already=True)


def _state(client: Any, version: Any, decision: Decision) -> Registration:
    return Registration(
        model_name=version.name,
        version=str(version.version),
        created=False,
        decision=decision.decision,
        failed_gates=tuple(decision.evidence.get("failed_gates", ())),
        champion=champion_number(client, version.name),
        compared_with=_compared_with(version),
        by=decision.by,
        evaluate_run=judged_figures(version).run_id,
        evaluated_before=None,
    )


def _compared_with(version: Any) -> str | None:
    """Return the version that the gates compared this one with last; None for none, as where it was champion then."""
    compared = [one.champion for one in decisions_of(version) if one.by == GATES and "gates" in one.evidence]
    return compared[-1] if compared and compared[-1] != str(version.version) else None


def _figures(version: Any, params: Params, challenger: Challenger) -> Figures:
    """Return the challenger's figures, recorded where they are not those that the gates judged last."""
    judged = judged_figures(version)
    key = challenger.results[-1].key if challenger.results else judged.key
    if key == judged.key:
        return judged
    run_id = record_stage(challenger.root, "evaluate", params)
    return judged if run_id == judged.run_id else Figures(key, run_id)


def compare(
    client: Any, version: Any, params: Params, challenger: Challenger, figures: Figures | None = None
) -> Decision:
    """Return the gates' decision about the challenger's `version` and its metrics, against the present champion.

    `figures` says which evaluation the metrics are of (default: the one that was judged before). A champion that is
    evaluated again has nothing to regress from; failing its bounds refuses it, and it stays.
    """
    present, figures = champion_of(client, version.name), figures or judged_figures(version)
    champion, unknown = None, []
    if present is not None and str(present.version) != str(version.version):
        try:
            champion = champion_metrics(present, params, challenger.processed, challenger.metrics, challenger.root)
        except UserError as error:
            # The champion's base may be lost: the challenger is then refused, which a person may override.
            unknown = [f"champion v{present.version} cannot be evaluated on this evaluation set: {error}"]
    results = judge(params.register_.gates, challenger.metrics, champion)
    licences = licence_faults(networks_of_adapter(challenger.adapter, challenger.root), params.register_.licences)
    # An absolute bound and a regression of one metric that is not measurable fail for one reason.
    lines = dict.fromkeys(one.line() for one in results if not one.passed)
    failures = (*lines, *licences, *unknown)
    before = None if present is None else str(present.version)
    may_promote = params.register_.promote and not _settled(version, before)
    return Decision(
        decision="not_asked" if not may_promote else "refused" if failures else "promoted",
        by=GATES,
        champion=before,
        reasons=failures,
        evidence={
            "evaluation_set": challenger.metrics["evaluation_set"],
            "evaluate_run": figures.run_id,
            "lock_hash": figures.key,
            "failed_gates": list(failures),
            "gates": [one.plain() for one in results],
        },
    )


def promote(root: Path, uri: str, *, by: str, reason: str | None = None, override_gates: bool = False) -> Move:
    """Make `uri` the champion by a person's decision.

    `register` must have compared the version; failed gates need `override_gates` and are listed in the decision. Where
    it is the champion already, only the decision is recorded, once for each person and reason.
    Raises UserError on wrong use, StageFailed where gates failed or the champion has changed since the comparison.
    """
    with _person_decides(root, uri, by) as (person, client, version, present):
        name, number = version.name, str(version.version)
        if present == number:
            _confirm(client, version, person, reason)
            return Move(name, number, "promoted", present, _champion_before(version), already=True)
        compared = _comparison(version)
        if problem := figures_problem(client, version):
            raise StageFailed(f"{problem}; it is not promoted, `dynamicid register` makes another version")
        failed = compared.evidence.get("failed_gates", [])
        if failed and not override_gates:
            raise StageFailed(
                f"{name} v{number} failed its gates: {'; '.join(failed)}; `--override-gates` promotes it nevertheless "
                "and records that in its tags"
            )
        reasons = (*_why(reason), *(f"overridden: {line}" for line in failed))
        try:
            _decide(client, version, replace(compared, decision="promoted", by=person, reasons=reasons))
        except ChampionMoved as moved:
            raise StageFailed(
                f"{name} v{number} is not promoted: {moved}; `dynamicid register` where it was trained (or in a folder "
                "made by `dynamicid reproduce`) compares again"
            ) from None
        return Move(name, number, "promoted", number, present)


def refuse(root: Path, uri: str, *, by: str, reason: str | None = None) -> Move:
    """Record that a person refused `uri`; the champion stays. Raises UserError where `uri` is the champion."""
    with _person_decides(root, uri, by) as (person, client, version, present):
        if present == str(version.version):
            raise UserError(f"{uri}: this is the champion; `dynamicid rollback` puts an earlier one in its place")
        last = last_decision(version)
        if last is None or (last.decision, last.by) != ("refused", person):
            evidence = last.evidence if last else {}
            add_decision(client, version, Decision("refused", person, present, _why(reason), evidence))
        return Move(version.name, str(version.version), "refused", present, present)


def rollback(root: Path, name: str, *, by: str, to: str | None = None, reason: str | None = None) -> Move:
    """Move the alias back to `to` (a URI), or to the version that was champion before the present one.

    Raises UserError where there is no such version or it was never promoted.
    """
    person = _person(by)
    client = open_registry(root)
    with registry_lock(root):
        finished = finish_moves(client, name)
        if finished is not None and finished.decisions[-1][1].decision == "restored" and to is None:
            return Move(name, finished.to, "restored", finished.to, finished.before)  # of a call that was killed
        present = champion_of(client, name)
        if present is None:
            raise UserError(f"{name}: no version has the alias {CHAMPION}, so there is nothing to roll back")
        old = str(present.version)
        before = _champion_before(present)
        if to is None and before is None:
            raise UserError(f"{name} v{old}: there was no champion before it; --to names one that was promoted")
        wanted = to or f"models:/{name}/{before}"
        target = find_version(client, wanted)
        new = str(target.version)
        if target.name != name:
            raise UserError(f"{wanted}: this is a version of {target.name}, the champion is one of {name}")
        if new == old:
            raise UserError(f"{wanted}: this is the champion already")
        if not any(one.decision == "promoted" for one in decisions_of(target)):
            raise UserError(f"{wanted}: v{new} was never champion; `dynamicid promote` is for new ones")
        if problem := files_problem(target):
            raise StageFailed(f"{problem}; it cannot be champion again")
        decisions = [
            (old, Decision("rolled_back", person, old, _why(reason), {"to": new})),
            (new, Decision("restored", person, old, _why(reason), {"from": old})),
        ]
        try:
            move_champion(client, name, new, old, decisions)
        except ChampionMoved as moved:
            raise StageFailed(f"{name}: not rolled back: {moved}") from None
        return Move(name, new, "restored", new, old)


@contextlib.contextmanager
def _person_decides(root: Path, uri: str, by: str) -> Iterator[tuple[str, Any, Any, str | None]]:
    """Hold the lock; yield the person's name, the client, the version of `uri`, and the champion's number."""
    person = _person(by)
    client = open_registry(root)
    with registry_lock(root):
        version = find_version(client, uri)
        finish_moves(client, version.name)
        version = find_version(client, uri)
        yield person, client, version, champion_number(client, version.name)


def _confirm(client: Any, version: Any, person: str, reason: str | None) -> None:
    """Record that a person promoted the present champion, unless that is the last decision about it."""
    last, why = last_decision(version), _why(reason)
    if last is None or (last.decision, last.by) != ("promoted", person) or (why and last.reasons != why):
        evidence = last.evidence if last else {}
        add_decision(client, version, Decision("promoted", person, str(version.version), why, evidence))


def _decide(client: Any, version: Any, decision: Decision) -> None:
    """Record a decision and, if it promotes, move the alias. The caller holds the lock.

    Raises ChampionMoved, and changes nothing, where the champion is no longer `decision.champion`.
    """
    present = champion_number(client, version.name)
    if present != decision.champion:
        raise ChampionMoved(decision.champion, present)
    number = str(version.version)
    if decision.decision == "promoted" and present != number:
        move_champion(client, version.name, number, present, [(number, decision)])
    else:
        add_decision(client, version, decision)


def _valid_decision(client: Any, version: Any, promote: bool, figures: Figures) -> Decision | None:
    """Return the valid decision, or None where the version has to be compared."""
    last, champion = last_decision(version), champion_number(client, version.name)
    if last is None or judged_figures(version) != figures:
        return None
    if last.decision == "not_asked" and promote and not _settled(version, champion):
        return None
    final = last.by != GATES or last.decision == "promoted"
    return last if final or last.champion == champion else None


def _settled(version: Any, champion: str | None) -> bool:
    """Whether a person has decided about the version, or it is champion no more: then only a person promotes it."""
    over = champion != str(version.version)
    return any(one.by != GATES or (one.decision == "promoted" and over) for one in decisions_of(version))


def _champion_before(version: Any) -> str | None:
    """Return the number of the champion before the last promotion of `version`, or None."""
    number = str(version.version)
    promoted = [one for one in decisions_of(version) if one.decision == "promoted" and one.champion != number]
    return promoted[-1].champion if promoted else None


def _comparison(version: Any) -> Decision:
    """Return the gates' last decision with a comparison; raise UserError where there is none."""
    compared = [one for one in decisions_of(version) if one.by == GATES and "gates" in one.evidence]
    if not compared:
        raise UserError(
            f"models:/{version.name}/{version.version}: its gates were never checked; `dynamicid register` does that"
        )
    return compared[-1]


def _person(name: str) -> str:
    if not name.strip() or name.strip() == GATES:
        raise UserError(f"--by {name!r}: expected the name of the person who decides")
    return name.strip()


def _why(reason: str | None) -> tuple[str, ...]:
    return (reason,) if reason else ()
