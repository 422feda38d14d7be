"""`dynamicid train-anchoring`: the first training stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, read_params
from pipelines.core.chain import ANCHORING, PROCESSED


def train_anchoring(
    *,
    processed: Annotated[Path, typer.Option(help="Processed photos.")] = Path(PROCESSED),
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")] = Path(ANCHORING),
    reports: Annotated[Path, typer.Option(help="Folder for losses.csv and metrics.json.")] = Path(
        "reports/train_anchoring"
    ),
    resume_from: Annotated[
        Path | None, typer.Option(help="Checkpoint to resume from; without it, the newest of this training.")
    ] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Train face encoder and SAA; several GPUs: `accelerate launch -m pipelines.cli train-anchoring`."""
    from pipelines.stages.train_anchoring import Inputs, Outputs, run

    inputs = Inputs(processed=processed, resume_from=resume_from)
    outputs = Outputs(adapter=out, losses=reports / "losses.csv", metrics=reports / "metrics.json")
    run(read_params(params, overrides), inputs, outputs)
