"""The autoencoder in one call of a pipeline of diffusers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from diffusers.configuration_utils import FrozenDict
from torch import Tensor

from model.network.latents import scale_latents, unscale_latents


class CallAutoencoder:
    """Stands in for a pipeline's autoencoder: its latents are scaled as the denoiser takes them, in its own precision.

    Pipelines of diffusers scale by one factor only, work in the precision of the denoiser, and change that of the
    autoencoder for a while, where other calls use it.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        already = {"scaling_factor": 1.0, "shift_factor": 0.0, "latents_mean": None, "latents_std": None}
        self.config = FrozenDict({**vae.config, **already, "force_upcast": False})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def to(self, *_: Any, **__: Any) -> CallAutoencoder:
        """Leave the autoencoder as it is, for the calls that share it."""
        return self

    def encode(self, pixels: Tensor) -> Any:
        """Return the posterior (`latent_dist`) of pixels (B, 3, H, W) in −1 … 1, or `latents` where there is none."""
        encoded = self._vae.encode(pixels.to(self._vae.dtype))
        if hasattr(encoded, "latent_dist"):
            return SimpleNamespace(latent_dist=_Scaled(self._vae, encoded.latent_dist))
        return SimpleNamespace(latents=scale_latents(self._vae, encoded.latents))

    def decode(self, latents: Tensor, *arguments: Any, **keywords: Any) -> Any:
        """Decode latents (B, C, h, w) as the autoencoder does, with its arguments."""
        return self._vae.decode(unscale_latents(self._vae, latents.to(self._vae.dtype)), *arguments, **keywords)


class _Scaled:
    """A posterior with scaled samples and mode."""

    def __init__(self, vae: Any, posterior: Any) -> None:
        self._vae, self._posterior = vae, posterior

    def sample(self, generator: Any = None) -> Tensor:
        return scale_latents(self._vae, self._posterior.sample(generator))

    def mode(self) -> Tensor:
        return scale_latents(self._vae, self._posterior.mode())
