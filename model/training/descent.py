"""One step down: backward, clipping, AdamW with its schedule, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class DescentSettings:
    """How steps are taken; the names are those of the parameter sections."""

    steps: int
    learning_rate: float
    learning_rate_decay: str
    weight_decay: float
    warmup_steps: int
    max_grad_norm: float
    ema_decay: float


def rate_factor(settings: DescentSettings) -> Callable[[int], float]:
    """Return the factor on the learning rate at a step: linear warm-up, then constant or half a cosine to zero."""

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

    Only what asks for a gradient when this is made is trained, and has an optimiser state and an average: a frozen base
    model costs neither. `ready` is the module to call, in the precision and on the processes of `accelerator`.
    """

    def __init__(self, module: nn.Module, settings: DescentSettings, accelerator: Any) -> None:
        from diffusers.training_utils import EMAModel

        self.accelerator = accelerator
        self.max_grad_norm = settings.max_grad_norm
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor(settings))
        self.ready, self.optimizer = accelerator.prepare(module, optimizer)
        self.average = EMAModel(self.parameters, decay=settings.ema_decay, foreach=True)
        # Not prepared: accelerate would advance it once for every process.
        accelerator.register_for_checkpointing(self.schedule, self.average)

    def step(self, loss: Tensor) -> None:
        """Take one step down `loss`, a scalar."""
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.average.step(self.parameters)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in for the block."""
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        try:
            yield
        finally:
            self.average.restore(self.parameters)
