"""The autoencoder: 64-pixel pictures to 16 × 16 × 4 latents, with a higher weight on faces.

Expressions must remain readable in reconstructions, so the loss has a higher weight on faces and also compares edges.
Afterwards the decoder is trained alone: latents do not change, so models trained on them remain valid (as with the
decoders that Stability AI fine-tuned for Stable Diffusion).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.foundation.loop import fit
from model.foundation.people import People
from model.foundation.pictures import as_tensor, face_weight, require_pairs, shrunk

SIZE = 64
BATCH = 16
FACE_WEIGHT = 3.0
KL_WEIGHT = 1e-6
RATES = (2e-3, 1.5e-3)
"""Peak learning rates: of encoder and decoder together, then of the decoder alone."""


def build() -> Any:
    """Return the untrained AutoencoderKL of 0.77 M parameters; latents have 4 channels and a quarter of the side."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def _edges(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[..., 1:, :] - images[..., :-1, :], images[..., :, 1:] - images[..., :, :-1]


def reconstruction_loss(found: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """Sum absolute errors of (B, 3, S, S) pictures and edges, both times `weight` (B, 1, S, S), and of 4 × 4 means."""
    weight = weight / weight.mean()
    loss = ((found - true).abs() * weight).mean()
    vertical, horizontal = (a - b for a, b in zip(_edges(found), _edges(true), strict=True))
    loss = loss + (vertical.abs() * weight[..., 1:, :]).mean() + (horizontal.abs() * weight[..., :, 1:]).mean()
    return loss + F.l1_loss(F.avg_pool2d(found, 4), F.avg_pool2d(true, 4))


def train(
    people: People, folder: Path, *, steps: int = 3200, decoder_steps: int = 0, seed: int = 0
) -> tuple[Any, dict[str, float]]:
    """Train the autoencoder, then its decoder alone for `decoder_steps`.

    Return it, with its scaling factor set, and figures: PSNR on held-out people, latent deviations on training people.
    """
    torch.manual_seed(seed)
    vae = build()
    require_pairs(people)
    singles, groups = shrunk(people, folder.parent / "pictures", SIZE)
    side = people.photos.shape[1]
    rows, group_rows = people.train, people.group_train

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        pairs = BATCH // 8
        one, two = np.sort(rng.choice(rows, BATCH - pairs)), np.sort(rng.choice(group_rows, pairs))
        boxes = np.concatenate([np.repeat(people.boxes[one][:, None], 2, 1), people.group["boxes"][two]]) / side
        return as_tensor(np.concatenate([singles[one], groups[two]])), face_weight(boxes, SIZE, FACE_WEIGHT)

    def losses(number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        images, weight = batch(rng)
        posterior = vae.encode(images).latent_dist
        error = reconstruction_loss(vae.decode(posterior.sample()).sample.float(), images, weight)
        return {"loss": error + KL_WEIGHT * posterior.kl().mean(), "error": error}

    def decoder_losses(number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        images, weight = batch(rng)
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.sample()
        return {"loss": reconstruction_loss(vae.decode(latents).sample.float(), images, weight)}

    fit(vae, losses, folder, name="autoencoder", steps=steps, rate=RATES[0], seed=seed, bf16=True)
    if decoder_steps:
        decoder = nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})
        settings: dict[str, Any] = {"steps": decoder_steps, "rate": RATES[1], "seed": seed + 1, "bf16": True}
        fit(decoder, decoder_losses, folder / "decoder", name="decoder", **settings)
    vae.eval()
    with torch.no_grad():
        sample = as_tensor(
            singles[np.sort(np.random.default_rng(seed).choice(rows, min(512, len(rows)), replace=False))]
        )
        latents = torch.cat([vae.encode(part).latent_dist.mode() for part in sample.split(64)])
        held = as_tensor(singles[people.held_out[:256]])
        found = torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in held.split(64)])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    error = float(((found - held) / 2).square().mean())
    return vae, {
        "psnr": float(-10 * np.log10(error)),
        "latent_std": float(latents.std()),
        "latent_channel_std_ratio": float(latents.std((0, 2, 3)).max() / latents.std((0, 2, 3)).min()),
    }
