"""`dynamicid train-anchoring` and `dynamicid train-imr`: the two training stages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from model.processors import cores, environment_of
from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit_if_asked
from pipelines.core.chain import ADAPTER, ANCHORING, PROCESSED
from pipelines.core.errors import StageFailed
from pipelines.versions.older import warn_if_older
from pipelines.versions.state import shared_state

Processed = Annotated[Path, option("Preprocessed photos.")]
Reports = Annotated[Path, option("Folder for losses.csv and metrics.json.")]
Processes = Annotated[
    int,
    option("Processes of this machine that divide the work, one for each GPU.", min=1, envvar="DYNAMICID_PROCESSES"),
]
ResumeFrom = Annotated[Path | None, option("Checkpoint to resume from; default: the latest of this training.")]


def train_anchoring(
    *,
    processed: Processed = Path(PROCESSED),
    out: Annotated[Path, option("Folder for the adapter.")] = Path(ANCHORING),
    reports: Reports = Path("reports/train_anchoring"),
    resume_from: ResumeFrom = None,
    processes: Processes = 1,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Train face encoder and attention (SAA)."""
    from pipelines.stages.train_anchoring import Inputs, Outputs, run

    outputs = Outputs(adapter=out, losses=reports / "losses.csv", metrics=reports / "metrics.json")
    warn_if_older(Path.cwd(), processed)
    if not divided(processes):
        inputs = Inputs(processed=processed, state=shared_state(Path()), resume_from=resume_from)
        run(read_params(params, overrides), inputs, outputs)
    emit_if_asked(outputs)


def train_imr(
    *,
    processed: Processed = Path(PROCESSED),
    anchoring: Annotated[Path, option("Adapter of the anchoring stage.")] = Path(ANCHORING),
    out: Annotated[Path, option("Folder for the complete adapter.")] = Path(ADAPTER),
    reports: Reports = Path("reports/train_imr"),
    resume_from: ResumeFrom = None,
    processes: Processes = 1,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Train the identity-motion reconfigurator (IMR)."""
    from pipelines.stages.train_imr import Inputs, Outputs, run

    outputs = Outputs(adapter=out, losses=reports / "losses.csv", metrics=reports / "metrics.json")
    warn_if_older(Path.cwd(), processed)
    if not divided(processes):
        state = shared_state(Path())
        inputs = Inputs(processed=processed, state=state, anchoring=anchoring, resume_from=resume_from)
        run(read_params(params, overrides), inputs, outputs)
    emit_if_asked(outputs)


def divided(processes: int) -> bool:
    """Run this command in `processes` processes of this machine; return False where this is one of them, or the only.

    Raises StageFailed where one of them fails: then all of them end.
    """
    if processes == 1 or "WORLD_SIZE" in os.environ:
        return False
    import torch

    env = environment_of(max(1, cores() // processes)) | dict(os.environ)
    if not torch.cuda.is_available():
        env["ACCELERATE_USE_CPU"] = "true"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run([sys.executable, *launcher, "-m", "pipelines.cli", *sys.argv[1:]], env=env, check=False)
    if done.returncode:
        raise StageFailed(f"one of {processes} processes failed; its reason is above")
    return True
