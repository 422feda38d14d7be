"""`dynamicid register`, `promote` and `rollback`: new versions of the model, and which of them is the champion."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, argument, option, read_params
from pipelines.commands.output import emit, say, say_done, warn
from pipelines.core.chain import PROCESSED
from pipelines.core.errors import StageFailed, UserError
from pipelines.operations.audit import audited


def register(
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
    adapter: Annotated[
        Path | None,
        option("Register this finished adapter instead, such as the one that ships; it is evaluated first."),
    ] = None,
    accept_refusal: Annotated[bool, option("Exit 0 if promotion is refused (for schedules).")] = False,
    promote: Annotated[
        bool | None,
        option(
            "Promote if the gates pass, or leave that to `dynamicid promote`; default: register.promote.",
            "--promote/--no-promote",
        ),
    ] = None,
) -> None:
    """Register models/adapter with the metrics of reports/metrics.json; exit 1 if a gate refuses promotion."""
    params = read_params(file, overrides)
    if promote is not None:
        section = params.register_.model_copy(update={"promote": promote})
        params = params.model_copy(update={"register_": section})
    from pipelines.registry.finished_adapter import register_finished
    from pipelines.stages import register as stage

    with audited(Path.cwd(), "register") as result:
        if adapter is None:
            done = stage.run(params, stage.Inputs(root=Path.cwd()))
        else:
            done = register_finished(params, Path.cwd(), adapter, Path(PROCESSED))
        result |= {"model": f"models:/{done.model_name}/{done.version}", "decision": done.decision}
        result |= {"champion": done.champion, "by": done.by}
    name, failed = f"{done.model_name} v{done.version}", "; ".join(done.failed_gates)
    is_champion = done.champion == done.version
    verdict = f"failed gates: {failed}" if failed else "every gate passed"
    if done.evaluated_before:
        say(
            f"{name}: this adapter is registered already and was evaluated again: figures of run {done.evaluate_run}, "
            f"judged before were those of run {done.evaluated_before}; {verdict}"
        )
    if done.decision == "refused":
        by = "" if done.by == "gates" else f" (refused by {done.by})"
        reason = f"{name} is not promoted{by}: {failed or 'no gate failed'}"
        if is_champion:
            reason = f"{name} is the champion and fails its gates: {failed}; `dynamicid rollback` takes it back"
        if not accept_refusal:
            emit(done)
            raise StageFailed(reason)
        warn(reason)
    else:
        champion = "there is no champion" if done.champion is None else f"champion is v{done.champion}"
        if done.already:
            by = "of the gates" if done.by == "gates" else f"by {done.by}"
            say(
                f"{name}: registered already with these figures: the decision {by} stands, and no gate was judged this "
                "time; `dynamicid promote` decides anew"
            )
        say_done(f"{name}: {done.decision}; {champion}")
    if done.decision == "not_asked" and not is_champion:
        uri = f"models:/{done.model_name}/{done.version}"
        say(f"{verdict}; `dynamicid promote {uri} --by NAME` decides")
    # Last: a scheduler reads the last line of both streams.
    emit(done)


def promote(
    uri: Annotated[str, argument("models:/dynamicid/3 or models:/dynamicid@challenger.", metavar="URI")],
    by: Annotated[str, option("Name of who decides, kept in the version's tags.", metavar="NAME")],
    refuse: Annotated[bool, option("Refuse promotion; the champion stays.", "--refuse")] = False,
    reason: Annotated[str | None, option("Reason, kept in the version's tags.")] = None,
    override_gates: Annotated[bool, option("Promote it although gates failed.", "--override-gates")] = False,
) -> None:
    """Make a version the champion, or refuse it; exit 1 if gates failed or the champion has changed meanwhile."""
    from pipelines.registry import promotion
    from pipelines.registry.moves import shown

    if refuse and override_gates:
        raise UserError("--refuse and --override-gates exclude each other")
    deed = "refuse" if refuse else "promote"
    with audited(Path.cwd(), deed, by=by, model=uri, override_gates=override_gates) as result:
        if refuse:
            move = promotion.refuse(Path.cwd(), uri, by=by, reason=reason)
        else:
            move = promotion.promote(Path.cwd(), uri, by=by, reason=reason, override_gates=override_gates)
        result |= {"version": move.version, "champion": move.champion, "before": move.before}
    emit(move)
    if move.already:
        say_done(f"{move.model_name} v{move.version}: is the champion already; its record has the decision of {by}")
        return
    champion = shown(move.champion)
    say_done(f"{move.model_name} v{move.version}: {move.decision} by {by}; champion is {champion}")


def rollback(
    by: Annotated[str | None, option("Name of who decides; default: the login name.", metavar="NAME")] = None,
    to: Annotated[str | None, option("Version to go back to; default: the previous champion.", metavar="URI")] = None,
    name: Annotated[str, option("Name of the registered model.")] = "dynamicid",
    reason: Annotated[str | None, option("Reason, kept in the tags of both versions.")] = None,
) -> None:
    """Set the alias `champion` back to a version that had it before."""
    from pipelines.registry import promotion

    with audited(Path.cwd(), "rollback", by=by, model=name, to=to) as result:
        move = promotion.rollback(Path.cwd(), name, by=by or getpass.getuser(), to=to, reason=reason)
        result |= {"champion": move.champion, "before": move.before}
    emit(move)
    say_done(f"{name}: the champion is v{move.champion} again, it was v{move.before}")
