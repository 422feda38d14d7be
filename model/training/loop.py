"""The loop of every training: resume, steps, rows of a curve with a probe, checkpoints, a progress bar."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.training.curve import LossCurve
from model.training.descent import Descent
from model.training.resume import Checkpoints
from model.training.schedule import prefetch
from model.training.settings import LoopSettings


@dataclass(frozen=True)
class Run:
    """With which processes a training runs, where its checkpoints are, and which of them was asked for."""

    accelerator: Any
    checkpoints: Checkpoints
    resume_from: Path | None = None

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to go on from: the one asked for, else the newest, or None."""
        return self.resume_from or self.checkpoints.latest()


def run_loop(
    descent: Descent,
    *,
    make_batch: Callable[[int], Any],
    losses: Callable[[nn.Module, Any], Mapping[str, Tensor]],
    probe: Callable[[], float] | None,
    settings: LoopSettings,
    run: Run,
    label: str,
    columns: tuple[str, ...] = (),
) -> LossCurve:
    """Train the module of `descent` and leave the averaged weights in it; return the curve.

    `make_batch(step)` must be a pure function; `losses(module, batch)` returns scalars by name, `loss` is descended;
    `probe()` measures the module on things that never change. Goes on from `run.resume_from` or the newest checkpoint.
    Raises FloatingPointError where the loss is no number any more.
    """
    from tqdm import tqdm

    accelerator, checkpoints = run.accelerator, run.checkpoints
    probe = probe if accelerator.is_main_process else None
    curve = LossCurve(columns)
    start = 0
    found = run.checkpoint
    if found is not None:
        start, state = checkpoints.load(accelerator, found)
        descent.average.to(device=accelerator.device)
        curve.load_state_dict(state)
        accelerator.print(f"{label}: resumed at step {start} of {settings.steps}", file=sys.stderr)
    elif probe is not None:
        curve.start = probe()
    recent: list[Mapping[str, Tensor]] = []
    with tqdm(
        total=settings.steps, initial=start, desc=label, unit="step", disable=not accelerator.is_main_process
    ) as bar:
        for step, batch in enumerate(prefetch(make_batch, start, settings.steps), start + 1):
            found_losses = losses(descent.ready, batch)
            descent.step(found_losses["loss"])
            recent.append({name: value.detach() for name, value in found_losses.items()})
            bar.update()
            last = step == settings.steps
            if step % settings.log_every == 0 or last:
                _collect(curve, recent, accelerator, label, step)
                measured = None
                if probe is not None:
                    with descent.averages(), torch.no_grad():
                        measured = probe()
                row = curve.close_row(step, measured)
                bar.set_postfix({name: f"{value:.4f}" for name, value in row.items() if value and name != "step"})
            if step % settings.checkpoint_every == 0 or last:
                _collect(curve, recent, accelerator, label, step)
                checkpoints.save(accelerator, step, curve.state_dict())
    descent.take_averages()
    return curve


def _collect(curve: LossCurve, recent: list[Mapping[str, Tensor]], accelerator: Any, label: str, step: int) -> None:
    """Bring the losses of the last steps, averaged over the processes, from the device into the curve."""
    if not recent:
        return
    flat = torch.stack([value.float() for losses in recent for value in losses.values()])
    values = iter(accelerator.reduce(flat, "mean").tolist())
    for losses in recent:
        curve.add({name: next(values) for name in losses})
    recent.clear()
    if not math.isfinite(curve.latest()):
        raise FloatingPointError(f"{label}: the loss is {curve.latest()} at step {step}: lower learning_rate")
