"""The autoencoder, with a higher weight on faces.

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

from model.foundation.edition import Edition
from model.foundation.loop import Legs, fit, training_device
from model.foundation.people import People
from model.foundation.pictures import Pictures, as_tensor, boxes_of, buckets, choose, face_weight

FACE_WEIGHT = 3.0
KL_WEIGHT = 1e-6
RATES = (2e-3, 1.5e-3)
"""Peak learning rates: of encoder and decoder together, then of the decoder alone."""


def build(edition: Edition) -> Any:
    """Return the untrained AutoencoderKL: 0.77 M parameters in the first edition, 2.4 M in the second."""
    from diffusers import AutoencoderKL

    spec = edition.autoencoder
    torch.manual_seed(spec.seed)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(spec.widths),
        up_block_types=("UpDecoderBlock2D",) * len(spec.widths),
        block_out_channels=spec.widths,
        layers_per_block=1,
        latent_channels=spec.latents,
        norm_num_groups=8,
        sample_size=edition.size,
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


def train(vae: Any, people: People, edition: Edition, legs: Legs) -> dict[str, float]:
    """Train the autoencoder in the first of `legs`, its decoder alone in the others.

    It keeps its scaling factor in its configuration. Return figures: PSNR on held-out people, latent deviations on
    training people.
    """
    spec = edition.autoencoder
    made = buckets(people, legs.pictures, edition.size)
    device = training_device()
    vae.to(device)

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        chosen = choose(made, rng, spec.batch, edition.single_share)
        images = as_tensor(np.concatenate([pictures.photos[np.sort(rows)] for pictures, rows in chosen]))
        boxes = boxes_of([(pictures, np.sort(rows)) for pictures, rows in chosen])
        height, width = images.shape[2:]
        return images.to(device), face_weight(boxes, (height, width), FACE_WEIGHT, spec.hair).to(device)

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

    def leg(number: int, state: Path) -> None:
        settings: dict[str, Any] = {"steps": legs.steps[number], "rate": RATES[number], "seed": spec.seed + number}
        if number == 0:
            fit(vae, losses, state, name="autoencoder", bf16=True, **settings)
            _scale(vae, made[0][0])
        else:
            decoder = nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})
            fit(decoder, decoder_losses, state, name="decoder", bf16=True, **settings)
        vae.eval()

    legs.run(vae, leg)
    vae.cpu().eval()
    latents = _scale(vae, made[0][0])
    held = as_tensor(made[0][0].photos[people.held_out[:256]])
    with torch.no_grad():
        found = torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in held.split(64)])
    error = float(((found - held) / 2).square().mean())
    deviations = latents.std((0, 2, 3))
    return {
        "psnr": float(-10 * np.log10(error)),
        "latent_std": float(latents.std()),
        "latent_channel_std_ratio": float(deviations.max() / deviations.min()),
    }


@torch.no_grad()
def _scale(vae: Any, pictures: Pictures) -> Tensor:
    """Set the factor that gives latents a deviation of 1; return the latents (N, C, h, w) that it is computed from."""
    rng, rows = np.random.default_rng(0), pictures.rows
    sample = as_tensor(pictures.photos[np.sort(rng.choice(rows, min(512, len(rows)), replace=False))])
    vae.eval()
    latents = torch.cat([vae.encode(part.to(vae.device)).latent_dist.mode().cpu() for part in sample.split(64)])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    return latents
