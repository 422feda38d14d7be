"""The UNet, trained on latents of procedural people with prompts that name face, clothes and place.

It predicts v on a schedule with zero terminal SNR (Lin et al. 2024) and trailing steps; otherwise backgrounds ignore
the prompt. Faces have a higher weight, and min-SNR weights keep low-noise steps from dominating (Hang et al. 2023).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.foundation.loop import fit
from model.foundation.people import People
from model.foundation.pictures import as_tensor, cached, face_weight, require_pairs, shrunk
from model.foundation.random_models import ddim
from model.foundation.vae import SIZE
from model.training.losses import snr_weights

LATENT = 16
BATCH = 32
RATES = (1.2e-3, 8e-4, 8e-4, 6e-4)
"""Peak learning rates of the legs; later legs are warm restarts (Loshchilov & Hutter 2017) from averaged weights."""
FACE_WEIGHT = 3.0
GAMMA = 5.0
NOISE_FLOOR = 0.4
DROP_TEXT = 0.1
ONLY_PROMPT = 0.2
PAIRS = 4
"""Pictures of two people in every batch."""


def build(width: int) -> Any:
    """Return the untrained UNet2DConditionModel for text states of `width`."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(2, 4),
        cross_attention_dim=width,
        norm_num_groups=16,
    )


def scheduler() -> Any:
    """Return the scheduler for training and sampling."""
    return ddim(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")


@torch.no_grad()
def latents_of(vae: Any, photos: Any, file: Path) -> Any:
    """Return the scaled latents of all photos, (N, 4, 16, 16) float16, cached in `file`."""

    def make() -> Any:
        made = [
            (vae.encode(as_tensor(photos[start : start + 64])).latent_dist.mode() * vae.config.scaling_factor).half()
            for start in range(0, len(photos), 64)
        ]
        return torch.cat(made).numpy()

    return cached(file, len(photos), make)


class TextStates:
    """Text states (B, 77, D) of a frozen text encoder, cached in memory."""

    def __init__(self, text_encoder: Any, tokenizer: Any) -> None:
        self._encoder = text_encoder.eval()
        self._tokenizer = tokenizer
        self._cache: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> Tensor:
        """Return the states of `texts`."""
        new = [text for text in dict.fromkeys(texts) if text not in self._cache]
        if new:
            tokens = self._tokenizer(new, padding="max_length", truncation=True, return_tensors="pt")
            with torch.autocast("cpu", enabled=False):
                states = self._encoder(tokens.input_ids).last_hidden_state.half()
            self._cache.update(zip(new, states, strict=True))
        return torch.stack([self._cache[text].float() for text in texts])


def train(
    people: People,
    vae: Any,
    text_encoder: Any,
    tokenizer: Any,
    folder: Path,
    *,
    steps: int,
    second_steps: int = 0,
    third_steps: int = 0,
    fourth_steps: int = 0,
    seed: int = 0,
) -> Any:
    """Train the UNet and return it: `steps` from random weights, then further legs, each from the previous average.

    The result of a leg is kept in `folder`/leg<n>.safetensors and not trained again; a leg of 0 steps is skipped.
    """
    torch.manual_seed(seed)
    pictures = folder.parent / "pictures"
    require_pairs(people)
    photos, groups = shrunk(people, pictures, SIZE)
    single = latents_of(vae, photos, pictures / "latents.npy")
    pairs = latents_of(vae, groups, pictures / "group_latents.npy")
    states = TextStates(text_encoder, tokenizer)
    noise_schedule = scheduler()
    unet = build(text_encoder.config.hidden_size)
    side = people.photos.shape[1]

    def losses(number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        one, two = rng.choice(people.train, BATCH - PAIRS), rng.choice(people.group_train, PAIRS)
        latents = torch.from_numpy(np.concatenate([single[one], pairs[two]])).float()
        texts = [
            people.prompts[i] if rng.random() < ONLY_PROMPT else f"{people.prompts[i]}, {people.face_prompts[i]}"
            for i in one
        ]
        texts += [people.group_prompts[i] for i in two]
        texts = ["" if rng.random() < DROP_TEXT else text for text in texts]
        noise = torch.randn_like(latents)
        steps_of = torch.randint(0, len(noise_schedule.alphas_cumprod), (BATCH,))
        noisy = noise_schedule.add_noise(latents, noise, steps_of)
        target = noise_schedule.get_velocity(latents, noise, steps_of)
        found = unet(noisy, steps_of, states(texts)).sample.float()
        boxes = np.concatenate([np.repeat(people.boxes[one][:, None], 2, 1), people.group["boxes"][two]]) / side
        weight = face_weight(boxes, LATENT, FACE_WEIGHT)
        error = ((found - target).square() * weight).mean((1, 2, 3)) / weight.mean((1, 2, 3))
        # The floor keeps weight on high-noise steps, which decide clothes and surroundings.
        loss = (error * (snr_weights(noise_schedule, steps_of, GAMMA) + NOISE_FLOOR)).mean()
        return {"loss": loss, "error": error.mean()}

    legs = (steps, second_steps, third_steps, fourth_steps)
    for leg, (count, rate) in enumerate(zip(legs, RATES, strict=True)):
        kept = folder / f"leg{leg}.safetensors"
        if count and not kept.is_file():
            settings: dict[str, Any] = {"steps": count, "rate": rate, "seed": seed + leg, "ema": 0.998, "bf16": True}
            fit(unet, losses, folder / f"leg{leg}", name=f"unet, leg {leg}", **settings)
            save_file(unet.state_dict(), folder / "leg.part")
            (folder / "leg.part").replace(kept)
        if count:
            unet.load_state_dict(load_file(kept))
    return unet.eval()
