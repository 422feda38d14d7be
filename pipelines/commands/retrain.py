"""`dynamicid retrain`: what a scheduled, data-driven or hand-started run of the training is to do."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import DEFAULT_PARAMS, ParamsFile

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True)


class Trigger(StrEnum):
    """What began the run."""

    hand = "hand"
    schedule = "schedule"
    data = "data"


class Start(StrEnum):
    """Where training begins."""

    scratch = "scratch"
    champion = "champion"


@app.callback()
def group() -> None:
    """Plan a run of the training."""


@app.command()
def plan(
    trigger: Annotated[Trigger, typer.Option(help="What began the run.")],
    version: Annotated[
        list[str] | None, typer.Option(help="A dataset version, repeatable; the newest counts. `latest`: of all.")
    ] = None,
    start_from: Annotated[Start | None, typer.Option(help="Default: retrain.start_from.")] = None,
    skip_code: Annotated[int, typer.Option(help="Exit code where there is nothing to train.")] = 0,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Print the plan as JSON: train, reason, dataset_version, seed, start_from."""
    from pipelines.core.params import load_params
    from pipelines.registry.retraining import make_plan

    made = make_plan(
        Path.cwd(), load_params(params), trigger.value, version or [], start_from.value if start_from else None
    )
    typer.echo(made.reason, err=True)
    typer.echo(json.dumps(asdict(made)))
    if not made.train:
        raise typer.Exit(skip_code)
