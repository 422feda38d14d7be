"""`dynamicid train-anchoring` and `dynamicid train-imr`: the two training stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit_if_asked
from pipelines.core.chain import ADAPTER, ANCHORING, PROCESSED

Processed = Annotated[Path, option("Preprocessed photos.")]
Reports = Annotated[Path, option("Folder for losses.csv and metrics.json.")]
ResumeFrom = Annotated[Path | None, option("Checkpoint to resume from; default: the latest of this training.")]


def train_anchoring(
    *,
    processed: Processed = Path(PROCESSED),
    out: Annotated[Path, option("Folder for the adapter.")] = Path(ANCHORING),
    reports: Reports = Path("reports/train_anchoring"),
    resume_from: ResumeFrom = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Train face encoder and attention (SAA); several GPUs: `accelerate launch -m pipelines.cli train-anchoring`."""
    from pipelines.stages.train_anchoring import Inputs, Outputs, run

    outputs = Outputs(adapter=out, losses=reports / "losses.csv", metrics=reports / "metrics.json")
    run(read_params(params, overrides), Inputs(processed=processed, resume_from=resume_from), outputs)
    emit_if_asked(outputs)


def train_imr(
    *,
    processed: Processed = Path(PROCESSED),
    anchoring: Annotated[Path, option("Adapter of the anchoring stage.")] = Path(ANCHORING),
    out: Annotated[Path, option("Folder for the complete adapter.")] = Path(ADAPTER),
    reports: Reports = Path("reports/train_imr"),
    resume_from: ResumeFrom = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Train the identity-motion reconfigurator (IMR); several GPUs: `accelerate launch -m pipelines.cli train-imr`."""
    from pipelines.stages.train_imr import Inputs, Outputs, run

    inputs = Inputs(processed=processed, anchoring=anchoring, resume_from=resume_from)
    outputs = Outputs(adapter=out, losses=reports / "losses.csv", metrics=reports / "metrics.json")
    run(read_params(params, overrides), inputs, outputs)
    emit_if_asked(outputs)
