"""`dynamicid register`: the adapter becomes a registered version, and champion if the gates let it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, read_params
from pipelines.errors import StageFailed


def register(
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
    accept_refusal: Annotated[
        bool, typer.Option(help="A refused challenger is a normal end (exit 0): for schedules.")
    ] = False,
) -> None:
    """Register models/adapter with the metrics of reports/metrics.json; exit 1 where a gate refuses promotion."""
    params = read_params(file, overrides)
    from pipelines.stages import register as stage

    done = stage.run(params, stage.Inputs(root=Path.cwd()))
    typer.echo(done.as_json())
    if done.decision == "refused":
        reason = f"{done.model_name} v{done.version} is not promoted: " + "; ".join(done.failed_gates)
        if not accept_refusal:
            raise StageFailed(reason)
        typer.secho(reason, fg=typer.colors.YELLOW, err=True)
    else:
        typer.secho(
            f"{done.model_name} v{done.version}: {done.decision}; champion is v{done.champion}",
            fg=typer.colors.GREEN,
            err=True,
        )
