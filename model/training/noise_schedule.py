"""The noise schedule of a base in training: that of diffusion, or flow matching."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from model.network.base import Base

FLOW = "flow_prediction"


class FlowMatching:
    """Straight paths from data to noise, x_σ = (1 − σ)·x + σ·ε, of which ε − x is predicted.

    Lipman et al., ICLR 2023; Esser et al., ICML 2024. Step n of `total`, counted from 0, has σ = (n + 1) / total. It
    has what the losses read of a DDPMScheduler, so that a training does not ask which of the two it has.
    """

    def __init__(self, total: int) -> None:
        self.config = SimpleNamespace(prediction_type=FLOW, num_train_timesteps=total)

    def sigmas(self, steps: Tensor) -> Tensor:
        """Return σ of `steps` (B,) int64, (B, 1, 1, 1) float32."""
        return ((steps + 1).float() / self.config.num_train_timesteps)[:, None, None, None]

    def add_noise(self, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """Return the noised latents (B, C, h, w)."""
        return torch.lerp(latents, noise, self.sigmas(steps).to(latents.dtype))

    def get_velocity(self, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """Return what is to be predicted, (B, C, h, w): the same at all steps."""
        return noise - latents


def noise_schedule_of(base: Base) -> Any:
    """Return the noise schedule that a base was trained with: a FlowMatching, or a DDPMScheduler."""
    from diffusers import DDPMScheduler

    if base.flow_matching:
        return FlowMatching(int(base.scheduler.config.num_train_timesteps))
    return DDPMScheduler.from_config(base.scheduler.config)


def timesteps_of(schedule: Any, steps: Tensor) -> Tensor:
    """Return the timesteps at which a base is asked in training `steps` (B,)."""
    return steps + 1 if isinstance(schedule, FlowMatching) else steps


def sampler_of(base: Base, steps: int, device: torch.device) -> Any:
    """Return a scheduler that is ready to draw from a base in `steps`: Euler's on a flow, otherwise DDIM."""
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    if not base.flow_matching:
        scheduler = DDIMScheduler.from_config(base.scheduler.config)
        scheduler.set_timesteps(steps, device=device)
        return scheduler
    config = {**base.scheduler.config, "use_dynamic_shifting": False}
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)], device=device)
    return scheduler
