"""The UNet, trained on latents of photographs with texts that say what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from model.foundation.edition import Edition
from model.foundation.loop import Legs, fit, training_device
from model.foundation.unet import TextStates, denoising_losses, scheduler, text_of

if TYPE_CHECKING:
    from model.foundation.photographs import PhotographData

CHECKPOINT_EVERY = 100
_ERROR_PHOTOS, _ERROR_SEED = 512, 4040


def train(unet: Any, data: PhotographData, edition: Edition, legs: Legs, states: TextStates) -> None:
    """Train the UNet on photographs, half of them mirrored, with their prompts and face prompts."""
    spec, noise_schedule = edition.unet, scheduler()
    unet.to(training_device())

    def losses(number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        rows = rng.choice(len(data.photos), spec.batch)
        return denoising_losses(unet, noise_schedule, *_batch(data, rows, rng.random(spec.batch) < 0.5, states, rng))

    def leg(number: int, state: Path) -> None:
        settings: dict[str, Any] = {"steps": legs.steps[number], "rate": spec.rates[number], "seed": spec.seed + number}
        fit(unet, losses, state, name=f"unet, leg {number}", ema=0.999, every=CHECKPOINT_EVERY, bf16=True, **settings)

    legs.run(unet, leg)
    unet.cpu().eval()


@torch.no_grad()
def error(unet: Any, data: PhotographData, states: TextStates) -> float | None:
    """Return the mean square error on at most 512 of the photographs with fixed noise; None without photographs.

    A base that remembers its photographs has a smaller error on them than on those of other people.
    """
    rng = np.random.default_rng(_ERROR_SEED)
    rows = rng.permutation(len(data.photos))[:_ERROR_PHOTOS]
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_ERROR_SEED)
        for part in np.array_split(rows, max(1, len(rows) // 32)):
            if len(part):
                batch = _batch(data, part, np.zeros(len(part), bool), states, rng)
                found += [float(denoising_losses(unet, scheduler(), *batch)["error"])] * len(part)
    return float(np.mean(found)) if found else None


def _batch(
    data: PhotographData, rows: np.ndarray, mirrored: np.ndarray, states: TextStates, rng: np.random.Generator
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return latents (B, C, h, w), text states (B, T, D) and face boxes (B, 1, 4) of photographs."""
    clean = data.latents.tensor(rows)[torch.arange(len(rows)), torch.from_numpy(mirrored.astype(np.int64))]
    boxes = data.faces.boxes(rows).numpy()
    boxes[mirrored] = boxes[mirrored][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    pairs = zip(rows.tolist(), mirrored.tolist(), strict=True)
    texts = [text_of(data.prompt(row), [data.face_prompt(row, mirror)], rng) for row, mirror in pairs]
    return clean, states(texts), boxes[:, None]
