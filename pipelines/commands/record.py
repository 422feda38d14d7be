"""`dynamicid record`: write stages that `dvc repro` brought up to date into MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def record(
    stages: Annotated[list[str] | None, typer.Argument(help="Stages; default: every stage in dvc.lock.")] = None,
) -> None:
    """Record the present result of each stage; one that is recorded already is found, not doubled."""
    from pipelines.commands.options import DEFAULT_PARAMS
    from pipelines.core.params import load_params
    from pipelines.registry.recorder import record_stage
    from pipelines.versions.repro import check_stages

    root = Path.cwd()
    params = load_params(root / DEFAULT_PARAMS)
    runs = {name: record_stage(root, name, params) for name in check_stages(list(stages or ()))}
    typer.echo(json.dumps(runs))
