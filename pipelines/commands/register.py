"""`dynamicid register`: the adapter becomes a registered version, and champion if the gates let it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit, say, say_done, warn
from pipelines.core.errors import StageFailed


def register(
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
    accept_refusal: Annotated[bool, option("A refused challenger is a normal end (exit 0): for schedules.")] = False,
    promote: Annotated[
        bool | None,
        option(
            "Let the gates decide, or only judge and leave it to `dynamicid promote`. Default: register.promote.",
            "--promote/--no-promote",
        ),
    ] = None,
) -> None:
    """Register models/adapter with the metrics of reports/metrics.json; exit 1 where a gate refuses promotion."""
    params = read_params(file, overrides)
    if promote is not None:
        section = params.register_.model_copy(update={"promote": promote})
        params = params.model_copy(update={"register_": section})
    from pipelines.stages import register as stage

    done = stage.run(params, stage.Inputs(root=Path.cwd()))
    failed = "; ".join(done.failed_gates)
    if done.decision == "refused":
        by = "" if done.by == "gates" else f" (refused by {done.by})"
        reason = f"{done.model_name} v{done.version} is not promoted{by}: {failed or 'no gate failed'}"
        if not accept_refusal:
            emit(done)
            raise StageFailed(reason)
        warn(reason)
    else:
        champion = "there is no champion" if done.champion is None else f"champion is v{done.champion}"
        say_done(f"{done.model_name} v{done.version}: {done.decision}; {champion}")
    if done.decision == "not_asked":
        verdict = f"failed gates: {failed}" if failed else "every gate is passed"
        uri = f"models:/{done.model_name}/{done.version}"
        say(f"{verdict}; `dynamicid promote {uri} --by NAME` decides")
    # Last: a scheduler reads the last line of what it sees of both streams.
    emit(done)
