"""Sample pictures while an adapter is trained: of the same people and prompts, from the same noise every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from model.network.adapter import Adapter
from model.network.base import Base
from model.network.latents import unscale_latents
from model.network.text_encoding import TextStates
from model.training.losses import prediction
from model.training.noise_schedule import sampler_of
from model.training.photos import Photos

_COLUMNS = 8
_SEED = 20240
_STEPS = 20
_GUIDANCE = 3.0


@dataclass(frozen=True)
class SampleGrid:
    """Rows of photos, and below them what the adapter draws: one column for each picture.

    `shown` are positions in `photos`, row by row; `text()` returns the N prompts of the last row, `tokens()` the
    identity tokens (N, K, D), both by the weights of the moment; `empty` is no prompt, in one row. `adapter` is
    attached to the denoiser of `base`.
    """

    base: Base
    adapter: Adapter
    photos: Photos
    shown: Sequence[np.ndarray]
    text: Callable[[], TextStates]
    empty: TextStates
    tokens: Callable[[], Tensor]

    @torch.no_grad()
    def draw(self) -> np.ndarray:
        """Return the grid, (rows · S, N · S, 3) uint8 RGB for pictures of S pixels."""
        training = self.adapter.training
        self.adapter.eval()
        vae, device, before = self.base.vae, self.base.device, self.base.vae.device
        try:
            vae.to(device)
            pixels = vae.decode(unscale_latents(vae, self._latents(device).to(vae.dtype)), return_dict=False)[0]
        finally:
            self.adapter.train(training)
            vae.to(before)
        drawn = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        rows = [*(self._photos(row, drawn.shape[1]) for row in self.shown), list(drawn)]
        return np.vstack([np.hstack(row) for row in rows])

    def _latents(self, device: torch.device) -> Tensor:
        """Return latents drawn by DDIM, or Euler's method, with classifier-free guidance."""
        prompted, asked = self.text(), self.tokens()
        count = len(asked)
        scheduler = sampler_of(self.base, _STEPS, device)
        text = TextStates(
            torch.cat([self.empty.states.expand(count, -1, -1).to(device), prompted.states.to(device)]),
            torch.cat([self.empty.pooled.expand(count, -1).to(device), prompted.pooled.to(device)]),
        )
        tokens = torch.cat([self.adapter.null_tokens.to(asked).expand(count, -1, -1), asked])
        side = self.base.resolution // self.base.pixels_per_latent
        # On the host, so that every device starts from the same noise.
        noise = torch.randn(
            (count, self.base.vae.config.latent_channels, side, side), generator=torch.Generator().manual_seed(_SEED)
        )
        latents = noise.to(device)
        for step in scheduler.timesteps:
            noised = torch.cat([latents, latents])
            without, by_text = prediction(self.base, noised, step.expand(2 * count), text, tokens).float().chunk(2)
            latents = scheduler.step(without + _GUIDANCE * (by_text - without), step, latents).prev_sample
        return latents

    def _photos(self, rows: np.ndarray, side: int) -> list[np.ndarray]:
        distinct, places = np.unique(rows, return_inverse=True)
        found = [
            cv2.resize(one.image, (side, side), interpolation=cv2.INTER_AREA) for one in self.photos.content(distinct)
        ]
        return [found[place] for place in places]


def some_of(people: Sequence[np.ndarray], first: int = 0) -> np.ndarray:
    """Return a photo of each of at most eight people, evenly spaced, from their photos after the `first` ones.

    Which photo it is differs from person to person, so that expressions and poses do.
    """
    chosen = np.unique(np.linspace(0, len(people) - 1, min(_COLUMNS, len(people))).astype(int))
    return np.array([people[row][first + 5 * number % (len(people[row]) - first)] for number, row in enumerate(chosen)])
