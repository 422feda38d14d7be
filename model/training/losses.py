"""The noise-prediction loss of the anchoring stage (paper section 3.4): target, weightings, and what it stands for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.network.identity_state import IdentityState

_LEAST_KEPT = 0.05


def noise_target(scheduler: Any, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
    """Return what the UNet should predict, as `scheduler` defines it: noise, velocity or the latents themselves.

    `latents`, `noise` (B, C, h, w); `steps` (B,) int64. Raises ValueError for a prediction type it does not know.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, steps)
    if kind == "sample":
        return latents
    raise ValueError(f"prediction type {kind!r} of the scheduler: expected epsilon, v_prediction or sample")


def prediction(unet: Any, noised: Tensor, steps: Tensor, text: Tensor, tokens: Tensor) -> Tensor:
    """Return what the UNet predicts for noised latents (B, C, h, w) under text and identity tokens."""
    height, width = noised.shape[-2:]
    return unet(
        noised.to(unet.dtype),
        steps,
        text.to(unet.dtype),
        cross_attention_kwargs={"identity": IdentityState(tokens, height=height, width=width)},
        return_dict=False,
    )[0]


def clean_latents(scheduler: Any, noised: Tensor, predicted: Tensor, steps: Tensor) -> Tensor:
    """Return the latents (B, C, h, w) float32 that a prediction for `noised` at `steps` stands for."""
    kept = scheduler.alphas_cumprod.to(noised.device)[steps].float()[:, None, None, None]
    noised, predicted = noised.float(), predicted.float()
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (noised - (1 - kept).sqrt() * predicted) / kept.sqrt().clamp_min(1e-2)
    if kind == "v_prediction":
        return kept.sqrt() * noised - (1 - kept).sqrt() * predicted
    return predicted


def speaks_of_latents(scheduler: Any, steps: Tensor) -> Tensor:
    """Return (B,) bool: whether `clean_latents` means something there.

    Predicted noise is divided by the share of the latents that is left: where that is next to nothing, so is what it
    says of them. Predicted velocity and latents always do.
    """
    if scheduler.config.prediction_type != "epsilon":
        return torch.ones_like(steps, dtype=torch.bool)
    return scheduler.alphas_cumprod.to(steps.device)[steps] > _LEAST_KEPT


def snr_weights(scheduler: Any, steps: Tensor, gamma: float | None) -> Tensor:
    """Return the weight of each step (B,) float32: min(SNR, γ) in terms of the latents (Hang et al., ICCV 2023).

    Without γ every step counts the same, whatever is predicted.
    """
    if gamma is None:
        return torch.ones(len(steps), device=steps.device)
    kept = scheduler.alphas_cumprod.to(steps.device)[steps].float()
    # A schedule with zero terminal SNR has kept = 0 there, one that ends clean kept = 1.
    snr = kept / (1 - kept).clamp_min(1e-8)
    clipped = snr.clamp_max(gamma)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return clipped / snr.clamp_min(1e-8)
    return clipped / (snr + 1) if kind == "v_prediction" else clipped


def face_weights(boxes: Tensor, height: int, width: int, weight: float) -> Tensor:
    """Return (B, 1, height, width) float32: `weight` in cells whose centre is in the face box, 1 elsewhere.

    `boxes` (B, 4): x0 y0 x1 y1 as shares of the picture.
    """
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    columns = (x >= boxes[:, 0:1]) & (x < boxes[:, 2:3])
    rows = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:4])
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return 1 + (weight - 1) * inside.float()


def weighted_mse(predicted: Tensor, target: Tensor, cells: Tensor, steps: Tensor) -> Tensor:
    """Return the squared error (scalar, float32), averaged with weights over `cells` (B, 1, h, w) and `steps` (B,)."""
    error = (predicted.float() - target.float()).square().mean(dim=1, keepdim=True)
    each = (error * cells).sum(dim=(1, 2, 3)) / cells.sum(dim=(1, 2, 3))
    return (each * steps).mean()
