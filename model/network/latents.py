"""Latents of an autoencoder, scaled as the denoiser takes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def encode_pixels(vae: Any, pixels: Tensor) -> Tensor:
    """Return scaled latents (B, C, h, w) of pixels (B, 3, H, W) in −1 … 1.

    They are the mode of the posterior; an AutoencoderTiny has none, and computes them directly.
    """
    encoded = vae.encode(pixels)
    latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    return scale_latents(vae, latents)


def scale_latents(vae: Any, latents: Tensor) -> Tensor:
    """Normalise the autoencoder's latents by mean, spread and scaling factor, as the UNet takes them."""
    shift, spread = _statistics(vae, latents)
    return (latents - shift) * (vae.config.scaling_factor / spread)


def unscale_latents(vae: Any, latents: Tensor) -> Tensor:
    """Undo `scale_latents`."""
    shift, spread = _statistics(vae, latents)
    if isinstance(spread, Tensor):
        return latents * (spread / vae.config.scaling_factor) + shift
    return latents / vae.config.scaling_factor + shift


def _statistics(vae: Any, latents: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Return mean and spread per latent channel if the autoencoder has them, else its shift factor and 1."""
    mean, spread = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is not None and spread is not None:
        return tuple(torch.tensor(x).view(1, -1, 1, 1).to(latents) for x in (mean, spread))  # type: ignore[return-value]
    return getattr(vae.config, "shift_factor", None) or 0.0, 1.0
