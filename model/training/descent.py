"""One step down: backward, clipping, the optimiser with its schedule, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from model.training.settings import TrainingSettings


def rate_factor(settings: TrainingSettings) -> Callable[[int], float]:
    """Return the factor on the learning rate at a step: linear warm-up, then constant or half a cosine to zero.

    That of diffusers' `get_scheduler` begins one step later, with a step of rate zero.
    """

    def factor(step: int) -> float:
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        if settings.learning_rate_decay == "none":
            return 1.0
        share = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    return factor


class Descent:
    """The trainable parameters of a module and all that moves them.

    `optimizer` holds the parameters, at its own rate times `rate(step)`; `average` (an EMAModel of diffusers) follows
    the tensors `averaged`. `ready` is the module to call, in the precision and on the processes of `accelerator`.
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
        self._averaged = averaged
        # Not prepared: accelerate would advance it once for every process.
        accelerator.register_for_checkpointing(self.schedule, average)

    def step(self, loss: Tensor) -> None:
        """Take one step down `loss`, a scalar."""
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.average.step(self._averaged)

    @contextmanager
    def averages(self) -> Iterator[None]:
        """Put the averaged weights in for the block."""
        self.average.store(self._averaged)
        self.take_averages()
        try:
            yield
        finally:
            self.average.restore(self._averaged)

    def take_averages(self) -> None:
        """Put the averaged weights in for good."""
        self.average.copy_to(self._averaged)


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return what asks for a gradient: a frozen base model costs neither an optimiser state nor an average."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def adamw(module: nn.Module, settings: TrainingSettings, accelerator: Any) -> Descent:
    """Return AdamW on what of `module` is trainable, as `settings` ask for it.

    torch's AveragedModel would copy the frozen UNet that the module holds.
    """
    from diffusers.training_utils import EMAModel

    parameters = trainable(module)
    return Descent(
        module,
        accelerator,
        optimizer=torch.optim.AdamW(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        ),
        rate=rate_factor(settings),
        average=EMAModel(parameters, decay=settings.ema_decay, foreach=True),
        averaged=parameters,
        max_grad_norm=settings.max_grad_norm,
    )
