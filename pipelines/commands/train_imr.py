"""`dynamicid train-imr`: the second training stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, read_params
from pipelines.core.chain import ADAPTER, ANCHORING, PROCESSED


def train_imr(
    *,
    processed: Annotated[Path, typer.Option(help="Processed photos.")] = Path(PROCESSED),
    anchoring: Annotated[Path, typer.Option(help="The adapter of the anchoring stage.")] = Path(ANCHORING),
    out: Annotated[Path, typer.Option(help="Folder for the complete adapter.")] = Path(ADAPTER),
    reports: Annotated[Path, typer.Option(help="Folder for losses.csv and metrics.json.")] = Path("reports/train_imr"),
    resume_from: Annotated[
        Path | None, typer.Option(help="Checkpoint to resume from; without it, the newest of this training.")
    ] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Train the IMR; several GPUs: `accelerate launch -m pipelines.cli train-imr`."""
    from pipelines.stages.train_imr import Inputs, Outputs, run

    inputs = Inputs(processed=processed, anchoring=anchoring, resume_from=resume_from)
    outputs = Outputs(adapter=out, losses=reports / "losses.csv", metrics=reports / "metrics.json")
    run(read_params(params, overrides), inputs, outputs)
