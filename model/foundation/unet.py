"""The UNet, trained on latents of procedural people with prompts that name face, clothes and place.

It predicts v on a schedule with zero terminal SNR (Lin et al. 2024) and trailing steps; otherwise backgrounds ignore
the prompt. Faces have a higher weight, and min-SNR weights keep low-noise steps from dominating (Hang et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.face.people_prompts import people_of, with_face_prompts
from model.foundation.edition import Edition
from model.foundation.loop import Legs, fit, training_device
from model.foundation.people import People
from model.foundation.pictures import as_tensor, boxes_of, buckets, cached, choose, face_weight
from model.foundation.random_models import ddim
from model.training.losses import snr_weights

FACE_WEIGHT = 3.0
GAMMA = 5.0
NOISE_FLOOR = 0.4
DROP_TEXT = 0.1
ONLY_PROMPT = 0.2
DROP_FACE = 0.05
# 37 kB each for 96 tokens of 192 numbers.
_KEPT_TEXTS = 30_000


def build(edition: Edition, width: int) -> Any:
    """Return the untrained UNet2DConditionModel for text states of `width`: 4.4 M parameters, 9.6 M in edition 2."""
    from diffusers import UNet2DConditionModel

    spec, channels = edition.unet, edition.autoencoder.latents
    torch.manual_seed(spec.seed)
    return UNet2DConditionModel(
        sample_size=edition.latent,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=spec.widths,
        down_block_types=("CrossAttnDownBlock2D",) * len(spec.widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(spec.widths),
        layers_per_block=1,
        attention_head_dim=spec.heads,
        cross_attention_dim=width,
        norm_num_groups=16,
    )


def scheduler() -> Any:
    """Return the scheduler for training and sampling."""
    return ddim(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")


@torch.no_grad()
def latents_of(vae: Any, photos: Any, file: Path) -> Any:
    """Return the scaled latents of all photos, (N, C, h, w) float16, cached in `file`."""

    def make() -> Any:
        made = [
            (vae.encode(as_tensor(photos[start : start + 64])).latent_dist.mode() * vae.config.scaling_factor).half()
            for start in range(0, len(photos), 64)
        ]
        return torch.cat(made).numpy()

    return cached(file, len(photos), make)


class TextStates:
    """Text states (B, T, D) of a frozen text encoder; up to 30,000 are cached in memory."""

    def __init__(self, text_encoder: Any, tokenizer: Any) -> None:
        self._encoder = text_encoder.eval()
        self._tokenizer = tokenizer
        self._cache: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, texts: list[str]) -> Tensor:
        """Return the states of `texts`."""
        return self.with_pooled(texts)[0]

    @torch.no_grad()
    def with_pooled(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return the states of `texts`, and their pooled states (B, D)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._cache]
        if len(self._cache) + len(new) > _KEPT_TEXTS:
            self._cache.clear()
            new = list(dict.fromkeys(texts))
        if new:
            tokens = self._tokenizer(new, padding="max_length", truncation=True, return_tensors="pt")
            with torch.autocast("cpu", enabled=False):
                found = self._encoder(tokens.input_ids)
            made = zip(found.last_hidden_state.half(), found.pooler_output.half(), strict=True)
            self._cache.update(zip(new, made, strict=True))
        states, pooled = zip(*(self._cache[text] for text in texts), strict=True)
        return torch.stack(states).float(), torch.stack(pooled).float()


def train(
    unet: Any, people: People, edition: Edition, legs: Legs, *, vae: Any, text_encoder: Any, tokenizer: Any
) -> None:
    """Train the UNet on latents of `vae` and states of `text_encoder`, which stay as they are."""
    spec, device, files = edition.unet, training_device(), legs.pictures
    made = buckets(people, files, edition.size)
    latents = {
        pictures.name: latents_of(vae, pictures.photos, files / f"{pictures.name}latents.npy")
        for kinds in made
        for pictures in kinds
    }
    states = TextStates(text_encoder, tokenizer)
    noise_schedule = scheduler()
    unet.to(device)

    def losses(number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        chosen = choose(made, rng, spec.batch, edition.single_share)
        clean = torch.from_numpy(np.concatenate([latents[pictures.name][rows] for pictures, rows in chosen])).float()
        texts = [
            text_of(pictures.prompts[row], pictures.face_prompts[row], rng) for pictures, rows in chosen for row in rows
        ]
        return denoising_losses(unet, noise_schedule, clean, states(texts), boxes_of(chosen))

    def leg(number: int, state: Path) -> None:
        settings: dict[str, Any] = {"steps": legs.steps[number], "rate": spec.rates[number], "seed": spec.seed + number}
        fit(unet, losses, state, name=f"unet, leg {number}", ema=0.998, bf16=True, **settings)

    legs.run(unet, leg)
    unet.cpu().eval()


def denoising_losses(unet: Any, noise_schedule: Any, clean: Tensor, texts: Tensor, boxes: Any) -> dict[str, Tensor]:
    """Return `loss` and `error` of predicting v for scaled latents `clean` (B, C, h, w) at random noise levels.

    `texts` (B, T, D) are text states, `boxes` (B, P, 4) face boxes in 0 … 1 of the picture. `error` is the mean square
    without the weights of noise levels.
    """
    device = unet.device
    noise = torch.randn_like(clean)
    times = torch.randint(0, len(noise_schedule.alphas_cumprod), (len(clean),))
    noisy = noise_schedule.add_noise(clean, noise, times)
    target = noise_schedule.get_velocity(clean, noise, times).to(device)
    found = unet(noisy.to(device), times.to(device), texts.to(device)).sample.float()
    height, width = clean.shape[2:]
    weight = face_weight(boxes, (height, width), FACE_WEIGHT).to(device)
    error = ((found - target).square() * weight).mean((1, 2, 3)) / weight.mean((1, 2, 3))
    # The floor keeps weight on high-noise steps, which decide clothes and surroundings.
    loss = (error * (snr_weights(noise_schedule, times, GAMMA) + NOISE_FLOOR).to(device)).mean()
    return {"loss": loss, "error": error.mean()}


def text_of(prompt: str, face_prompts: Sequence[str], rng: np.random.Generator) -> str:
    """Return the text of a training picture: prompt and face prompts, or less of them.

    Pictures of several people get face prompts only where the prompt names people by place.
    """
    if rng.random() < DROP_TEXT:
        return ""
    if rng.random() < ONLY_PROMPT or (len(face_prompts) > 1 and not people_of(prompt)):
        return prompt
    several = len(face_prompts) > 1
    return with_face_prompts(prompt, ["" if several and rng.random() < DROP_FACE else text for text in face_prompts])
