"""A small transformer of the class of FLUX.1, trained on the latents, texts and people of the UNet by flow matching.

Noise levels are logit-normal (Esser et al., ICML 2024); faces have a higher weight, as in the UNet's training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.foundation.edition import Edition
from model.foundation.loop import Legs, fit, training_device
from model.foundation.people import People
from model.foundation.pictures import boxes_of, buckets, choose, face_weight
from model.foundation.unet import FACE_WEIGHT, TextStates, latents_of, text_of
from model.network.joint_attention import PATCH
from model.network.text_encoding import TextStates as JointText
from model.network.transformer_base import velocity

_HEAD = 32
# How much of a head's width turns with the number of the sequence, the row and the column.
_AXES = (8, 12, 12)


def build(edition: Edition, width: int) -> Any:
    """Return the untrained FluxTransformer2DModel for texts of `width`: 6.8 M parameters."""
    from diffusers import FluxTransformer2DModel

    spec = edition.transformer
    torch.manual_seed(spec.seed)
    return FluxTransformer2DModel(
        in_channels=PATCH**2 * edition.autoencoder.latents,
        num_layers=spec.blocks[0],
        num_single_layers=spec.blocks[1],
        attention_head_dim=_HEAD,
        num_attention_heads=spec.heads,
        joint_attention_dim=width,
        pooled_projection_dim=width,
        axes_dims_rope=_AXES,
    )


def scheduler() -> Any:
    """Return the scheduler for sampling."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=1.0)


def train(
    transformer: Any, people: People, edition: Edition, legs: Legs, *, vae: Any, text_encoder: Any, tokenizer: Any
) -> None:
    """Train the transformer on latents of `vae` and texts of `text_encoder`, which stay as they are."""
    spec, device, files = edition.transformer, training_device(), legs.pictures
    made = buckets(people, files, edition.size)
    latents = {
        pictures.name: latents_of(vae, pictures.photos, files / f"{pictures.name}latents.npy")
        for kinds in made
        for pictures in kinds
    }
    texts = TextStates(text_encoder, tokenizer)
    transformer.to(device)

    def losses(number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        chosen = choose(made, rng, spec.batch, edition.single_share)
        clean = torch.from_numpy(np.concatenate([latents[pictures.name][rows] for pictures, rows in chosen])).float()
        asked = [
            text_of(pictures.prompts[row], pictures.face_prompts[row], rng) for pictures, rows in chosen for row in rows
        ]
        return flow_losses(transformer, clean, JointText(*texts.with_pooled(asked)), boxes_of(chosen))

    def leg(number: int, state: Any) -> None:
        settings: dict[str, Any] = {"steps": legs.steps[number], "rate": spec.rates[number], "seed": spec.seed + number}
        fit(transformer, losses, state, name=f"transformer, leg {number}", ema=0.998, bf16=True, **settings)

    legs.run(transformer, leg)
    transformer.cpu().eval()


def flow_losses(transformer: Any, clean: Tensor, text: JointText, boxes: Any) -> dict[str, Tensor]:
    """Return `loss` of predicting the velocity for scaled latents `clean` (B, C, h, w) at random noise levels.

    `boxes` (B, P, 4): face boxes in 0 … 1 of the picture.
    """
    device = transformer.device
    noise, sigmas = torch.randn_like(clean), torch.randn(len(clean)).sigmoid()
    noised = torch.lerp(clean, noise, sigmas[:, None, None, None])
    found = velocity(transformer, noised.to(device), sigmas.to(device), text.to(device)).float()
    weight = face_weight(boxes, clean.shape[2:], FACE_WEIGHT).to(device)
    error = ((found - (noise - clean).to(device)).square() * weight).mean((1, 2, 3)) / weight.mean((1, 2, 3))
    return {"loss": error.mean()}
