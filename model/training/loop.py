"""The loop of every training: resuming, steps, loss curve with probe, checkpoints, progress bar."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.training.curve import LossCurve
from model.training.optimisation import BestAverages, Optimisation
from model.training.resume import Checkpoints
from model.training.runtime import fast
from model.training.samples import SampleGrid
from model.training.seeded_draws import prefetch
from model.training.settings import LoopSettings


@dataclass(frozen=True)
class Run:
    """The processes of a training, its checkpoints, and the checkpoint that the user chose to resume from.

    `on_row` gets each row of the loss curve when it is complete, `on_samples` the step and a grid of sample pictures,
    (H, W, 3) uint8 RGB; both in the main process. `inexact`: operations that were met so far and have no deterministic
    algorithm.
    """

    accelerator: Any
    checkpoints: Checkpoints
    resume_from: Path | None = None
    on_row: Callable[[Mapping[str, float | None]], None] | None = None
    on_samples: Callable[[int, np.ndarray], None] | None = None
    inexact: set[str] = field(default_factory=set)

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to resume from: the chosen one, else the newest that is whole, or None."""
        return self.resume_from or self.checkpoints.latest()


def run_loop(
    optimisation: Optimisation,
    *,
    make_batch: Callable[[int], Any],
    losses: Callable[[nn.Module, Any], Mapping[str, Tensor]],
    probe: Callable[[], float] | None,
    settings: LoopSettings,
    run: Run,
    label: str,
    columns: tuple[str, ...] = (),
    samples: SampleGrid | None = None,
) -> LossCurve:
    """Train the module of `optimisation`, leave averaged weights in it (the last, or the best) and return the curve.

    `make_batch(step)` must be a pure function; `losses(module, batch)` returns scalars by name, of which `loss` is
    minimised; `probe()` measures the module on fixed data, and `samples` draws, with its averaged weights. Resume from
    `run.checkpoint` if there is one. When a row or a checkpoint is due, raise FloatingPointError if a loss since the
    last one is NaN or infinite.
    """
    from tqdm import tqdm

    accelerator, checkpoints = run.accelerator, run.checkpoints
    probe = probe if accelerator.is_main_process else None
    curve = LossCurve(columns)
    best = BestAverages() if settings.keep == "best" else None
    if best is not None:
        accelerator.register_for_checkpointing(best)
    start = _resume(run, curve, label, settings.steps)
    if start is not None:
        optimisation.average.to(device=accelerator.device)
    elif probe is not None:
        curve.start = probe()
    recent: list[Mapping[str, Tensor]] = []

    def close_row(step: int) -> dict[str, str]:
        measured = None
        if probe is not None:
            with optimisation.averages(), torch.no_grad():
                measured = probe()
                if best is not None:
                    best.offer(step, measured, optimisation.averaged)
        row = curve.close_row(step, measured)
        if run.on_row is not None and accelerator.is_main_process:
            run.on_row(row)
        return {name: f"{value:.4f}" for name, value in row.items() if value and name != "step"}

    with (
        fast() if settings.determinism == "fast" else nullcontext(),
        tqdm(
            total=settings.steps, initial=start or 0, desc=label, unit="step", disable=not accelerator.is_main_process
        ) as bar,
    ):
        for step, batch in enumerate(prefetch(make_batch, start or 0, settings.steps), (start or 0) + 1):
            scalars = losses(optimisation.ready, batch)
            optimisation.step(scalars["loss"])
            recent.append({name: value.detach() for name, value in scalars.items()})
            bar.update()
            if step % settings.log_every == 0:
                _collect(curve, recent, accelerator, label, step)
                bar.set_postfix(close_row(step))
            if samples and run.on_samples and settings.samples_every and step % settings.samples_every == 0:
                if accelerator.is_main_process:
                    with optimisation.averages(), accelerator.autocast():
                        run.on_samples(step, samples.draw())
                accelerator.wait_for_everyone()
            if step % settings.checkpoint_every == 0 or step == settings.steps:
                _collect(curve, recent, accelerator, label, step)
                checkpoints.save(accelerator, step, curve.state_dict())
    # After the last checkpoint: a training that is continued from there has no row here.
    if not curve.rows or curve.rows[-1]["step"] != settings.steps:
        close_row(settings.steps)
    optimisation.take_averages()
    if best is not None and best.step is not None:
        best.restore(optimisation.averaged)
        curve.kept = best.step
        accelerator.print(f"{label}: the weights of step {best.step} are kept, with the lowest probe", file=sys.stderr)
    return curve


def _resume(run: Run, curve: LossCurve, label: str, steps: int) -> int | None:
    """Load the checkpoint to resume from, and the curve; return its step, None where a training begins."""
    accelerator, checkpoints, checkpoint = run.accelerator, run.checkpoints, run.checkpoint
    for folder, problem in checkpoints.damaged.items():
        instead = "the training begins again" if checkpoint is None else f"{checkpoint.name} is used instead"
        accelerator.print(f"{label}: checkpoint {folder} is damaged ({problem}); {instead}", file=sys.stderr)
    if checkpoint is None:
        if accelerator.is_main_process and (other := checkpoints.otherwise_divided()) is not None:
            begun = f"{label}: {other[0]} is of this training with {other[1]}, which is not continued: it begins again"
            accelerator.print(begun, file=sys.stderr)
        return None
    start, state = checkpoints.load(accelerator, checkpoint)
    curve.load_state_dict(state)
    accelerator.print(f"{label}: resumed at step {start} of {steps}", file=sys.stderr)
    return start


def _collect(curve: LossCurve, recent: list[Mapping[str, Tensor]], accelerator: Any, label: str, step: int) -> None:
    """Move the losses of the last steps from the device into the curve, averaged over the processes."""
    if not recent:
        return
    flat = torch.stack([value.float() for losses in recent for value in losses.values()])
    values = iter(accelerator.reduce(flat, "mean").tolist())
    for number, losses in enumerate(recent, step - len(recent) + 1):
        curve.add({name: next(values) for name in losses})
        if not math.isfinite(curve.latest()):
            raise FloatingPointError(f"{label}: the loss is {curve.latest()} at step {number}")
    recent.clear()
