"""The noise-prediction loss of the anchoring stage (paper section 3.4): target, weights, clean latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.network.base import Base
from model.network.identity_state import IdentityState
from model.network.text_encoding import TextStates
from model.network.text_maps import TextMaps
from model.training.noise_schedule import FLOW

_MIN_SIGNAL = 0.05


def noise_target(scheduler: Any, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
    """Return what the base should predict, as `scheduler` defines it: noise, velocity or the latents themselves.

    `latents`, `noise` (B, C, h, w); `steps` (B,) int64. Raise ValueError for an unknown prediction type.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind in ("v_prediction", FLOW):
        return scheduler.get_velocity(latents, noise, steps)
    if kind == "sample":
        return latents
    raise ValueError(f"prediction type {kind!r} of the scheduler: expected epsilon, v_prediction, sample or {FLOW}")


def prediction(
    base: Base, noised: Tensor, steps: Tensor, text: TextStates, tokens: Tensor, *, text_maps: TextMaps | None = None
) -> Tensor:
    """Return what the base predicts for noised latents (B, C, h, w), texts and identity tokens.

    `text_maps` collects the attention of its layers to words.
    """
    height, width = noised.shape[-2:]
    return base.predict(noised, steps, text, IdentityState(tokens, height=height, width=width, text_maps=text_maps))


def clean_latents(scheduler: Any, noised: Tensor, predicted: Tensor, steps: Tensor) -> Tensor:
    """Return the clean latents (B, C, h, w) float32 that the prediction for `noised` at `steps` implies."""
    noised, predicted = noised.float(), predicted.float()
    kind = scheduler.config.prediction_type
    if kind == FLOW:
        return noised - scheduler.sigmas(steps) * predicted
    signal = scheduler.alphas_cumprod.to(noised.device)[steps].float()[:, None, None, None]
    if kind == "epsilon":
        return (noised - (1 - signal).sqrt() * predicted) / signal.sqrt().clamp_min(1e-2)
    if kind == "v_prediction":
        return signal.sqrt() * noised - (1 - signal).sqrt() * predicted
    return predicted


def latents_recoverable(scheduler: Any, steps: Tensor) -> Tensor:
    """Return (B,) bool: whether `clean_latents` is well conditioned at `steps`.

    For predicted noise it divides by the remaining signal, which must not be close to zero. For predicted velocity or
    latents, every step is recoverable.
    """
    if scheduler.config.prediction_type != "epsilon":
        return torch.ones_like(steps, dtype=torch.bool)
    return scheduler.alphas_cumprod.to(steps.device)[steps] > _MIN_SIGNAL


def snr_weights(scheduler: Any, steps: Tensor, gamma: float | None) -> Tensor:
    """Return the weights (B,) float32 of the losses at `steps`; without γ, all are 1.

    They weight the error of the clean latents by min(SNR, γ) (Hang et al., ICCV 2023).
    """
    if gamma is None:
        return torch.ones(len(steps), device=steps.device)
    if scheduler.config.prediction_type == FLOW:
        sigma = scheduler.sigmas(steps).flatten()
        return ((1 - sigma) / sigma).square().clamp_max(gamma) * sigma.square()
    signal = scheduler.alphas_cumprod.to(steps.device)[steps].float()
    # Signal is 0 at the end of a schedule with zero terminal SNR, and 1 at the start of one that starts clean.
    snr = signal / (1 - signal).clamp_min(1e-8)
    clipped = snr.clamp_max(gamma)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return clipped / snr.clamp_min(1e-8)
    return clipped / (snr + 1) if kind == "v_prediction" else clipped


def face_weights(boxes: Tensor, height: int, width: int, weight: float) -> Tensor:
    """Return (B, 1, height, width) float32: `weight` in cells with their centre in the face box, 1 elsewhere.

    `boxes` (B, 4): x0 y0 x1 y1 in 0 … 1 of the photo.
    """
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    columns = (x >= boxes[:, 0:1]) & (x < boxes[:, 2:3])
    rows = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:4])
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return 1 + (weight - 1) * inside.float()


def weighted_mse(predicted: Tensor, target: Tensor, cells: Tensor, steps: Tensor) -> Tensor:
    """Return a float32 scalar: the mean of `steps` (B,) × squared error averaged with weights `cells` (B, 1, h, w)."""
    error = (predicted.float() - target.float()).square().mean(dim=1, keepdim=True)
    each = (error * cells).sum(dim=(1, 2, 3)) / cells.sum(dim=(1, 2, 3))
    return (each * steps).mean()
