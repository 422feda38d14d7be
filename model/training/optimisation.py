"""Take optimiser steps: backward pass, gradient clipping, learning-rate schedule, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from model.training.settings import TrainingSettings


def rate_factor(settings: TrainingSettings) -> Callable[[int], float]:
    """Return the learning-rate factor as a function of the step: linear warm-up, then constant or half a cosine to 0.

    The schedules of diffusers' `get_scheduler` are one step behind this one: their first step has rate zero.
    """

    def factor(step: int) -> float:
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        if settings.learning_rate_decay == "none":
            return 1.0
        share = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    return factor


class Optimisation:
    """The trainable parameters of a module with their optimiser, learning-rate schedule and moving average.

    The learning rate of `optimizer` is multiplied by `rate(step)`; `average` (an EMAModel of diffusers) follows the
    tensors `averaged`. Training must call `ready`, the module as prepared by `accelerator`.
    """

    def __init__(
        self,
        module: nn.Module,
        accelerator: Any,
        *,
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float],
        average: Any,
        averaged: Sequence[Tensor],
        max_grad_norm: float,
    ) -> None:
        self.accelerator = accelerator
        self.max_grad_norm = max_grad_norm
        self.parameters = trainable(module)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        self.ready, self.optimizer = accelerator.prepare(module, optimizer)
        self.average = average
        self.averaged = averaged
        # Not passed to `prepare`: accelerate would advance the schedule once for every process.
        accelerator.register_for_checkpointing(self.schedule, average)

    def step(self, loss: Tensor) -> None:
        """Take one optimiser step on the scalar `loss`."""
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.average.step(self.averaged)

    @contextmanager
    def averages(self) -> Iterator[None]:
        """Use the averaged weights inside the block."""
        self.average.store(self.averaged)
        self.take_averages()
        try:
            yield
        finally:
            self.average.restore(self.averaged)

    def take_averages(self) -> None:
        """Replace the weights by their averages."""
        self.average.copy_to(self.averaged)


class BestAverages:
    """The averaged weights with the lowest probe, in memory of the host; kept in checkpoints, too."""

    def __init__(self) -> None:
        self.step: int | None = None
        self._probe = math.inf
        self._weights: list[Tensor] = []

    def offer(self, step: int, probe: float, weights: Sequence[Tensor]) -> None:
        """Keep the `weights` after `step` where their `probe` is the lowest so far."""
        if probe < self._probe:
            self.step, self._probe = step, probe
            self._weights = [one.detach().to("cpu", copy=True) for one in weights]

    def restore(self, weights: Sequence[Tensor]) -> None:
        """Replace the values of `weights` by those that are kept, if any."""
        for one, kept in zip(weights, self._weights, strict=False):
            one.data.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"step": self.step, "probe": self._probe, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what a checkpoint has kept."""
        self.step, self._probe, self._weights = state["step"], state["probe"], state["weights"]


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that require gradients; frozen ones need neither optimiser state nor average."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def adamw(module: nn.Module, settings: TrainingSettings, accelerator: Any) -> Optimisation:
    """Return AdamW with a moving average for the trainable parameters of `module`.

    Raise ValueError where `settings.optimiser` needs a package that is not installed.
    """
    from diffusers.training_utils import EMAModel

    parameters = trainable(module)
    return Optimisation(
        module,
        accelerator,
        optimizer=_optimizer(parameters, settings),
        rate=rate_factor(settings),
        # torch's AveragedModel would also copy the frozen UNet that the module holds.
        average=EMAModel(parameters, decay=settings.ema_decay, foreach=True),
        averaged=parameters,
        max_grad_norm=settings.max_grad_norm,
    )


def _optimizer(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    values = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(parameters, **values, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ValueError(
            f"optimiser {settings.optimiser!r} needs the package bitsandbytes ({error}): install the extra eight-bit, "
            "`pip install -c constraints.txt -e '.[eight-bit]'`, or set optimiser to 'adamw'"
        ) from None
    # Moments in one byte with a scale for every 256 numbers (Dettmers et al., ICLR 2022); tensors of fewer than 4,096
    # numbers keep four.
    return AdamW8bit(parameters, **values)
