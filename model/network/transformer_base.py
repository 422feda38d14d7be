"""A transformer as the frozen base (FLUX.1): texts, packed latents, flow matching.

Esser et al., ICML 2024; https://github.com/black-forest-labs/flux. Noised latents are x_σ = (1 − σ)·x + σ·ε, and the
transformer predicts ε − x. Patches of 2×2 latent cells are the positions of its sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.network.base import (
    FLUX,
    Base,
    class_in,
    load_autoencoder,
    load_network,
    load_scheduler,
    read_index,
    require_files,
)
from model.network.crop_transform import CropTransform
from model.network.identity_state import IdentityState
from model.network.joint_attention import PATCH
from model.network.text_encoding import TextEncoder, TextStates, encode_joint_text, joint_text_length

_PARTS = ("vae", "transformer", "text_encoder", "tokenizer", "scheduler")
_SECOND_TEXT = ("text_encoder_2", "tokenizer_2")
# What FluxPipeline conditions a guidance-distilled transformer on unless a call says otherwise.
_GUIDANCE = 3.5


@dataclass(frozen=True)
class TransformerBase(Base):
    """The base models of FLUX.1; without a T5 encoder (`text_encoder_2`), the text is that of CLIP."""

    flow_matching = True
    family = FLUX

    @property
    def texts(self) -> tuple[TextEncoder, ...]:
        """The pair of CLIP's tokenizer and text model, which gives the pooled text, also of face prompts."""
        return ((self.tokenizer, self.text_encoder),)

    @property
    def resolution(self) -> int:
        """The side in pixels of the pictures that the autoencoder was trained for; others are possible."""
        return int(self.vae.config.sample_size)

    @property
    def pooled_width(self) -> int:
        """The width of the pooled text that the transformer reads beside the states."""
        return int(self.denoiser.config.pooled_projection_dim)

    @property
    def text_shape(self) -> tuple[int, int]:
        """Length and width of the text states."""
        return joint_text_length(self.tokenizer_2 or self.tokenizer), int(self.denoiser.config.joint_attention_dim)

    @property
    def text_networks(self) -> tuple[str, ...]:
        """The folders of tokenizers and text models."""
        return ("text_encoder", "tokenizer", *(() if self.text_encoder_2 is None else _SECOND_TEXT))

    def check_resolution(self, side: int, origin: str) -> None:
        """Raise ValueError unless pictures of `side` pixels are a whole number of patches."""
        if side % (step := PATCH * self.pixels_per_latent):
            raise ValueError(
                f"base.resolution {side}: the transformer of {origin} makes pictures of multiples of {step}"
            )

    def text_states(self, prompts: Sequence[str]) -> TextStates:
        """Return texts as `predict` takes them: states of T5 (or CLIP), and CLIP's pooled text."""
        with torch.no_grad():
            second = None if self.text_encoder_2 is None else (self.tokenizer_2, self.text_encoder_2)
            return TextStates(*encode_joint_text(self.texts[0], second, prompts))

    def predict(self, noised: Tensor, steps: Tensor, text: TextStates, identity: IdentityState | None = None) -> Tensor:
        """Return the velocity (B, C, h, w) at the timesteps `steps` (B,), σ times their number in training.

        A guidance-distilled transformer is asked at guidance 3.5.
        """
        sigmas = steps.float() / self.scheduler.config.num_train_timesteps
        return velocity(self.denoiser, noised, sigmas, text, identity)


def velocity(
    transformer: Any, noised: Tensor, sigmas: Tensor, text: TextStates, identity: IdentityState | None = None
) -> Tensor:
    """Return what a transformer predicts for noised latents (B, C, h, w) at σ (B,), in its precision."""
    (height, width), embedded = noised.shape[-2:], transformer.config.guidance_embeds
    kind, device = transformer.dtype, noised.device
    predicted = transformer(
        pack_latents(noised.to(kind)),
        encoder_hidden_states=text.states.to(kind),
        pooled_projections=text.pooled.to(kind),
        timestep=sigmas.to(kind),
        guidance=torch.full((len(noised),), _GUIDANCE, device=device) if embedded else None,
        img_ids=patch_places(height, width).to(device, kind),
        txt_ids=torch.zeros(text.states.shape[1], 3, device=device, dtype=kind),
        joint_attention_kwargs=None if identity is None else {"identity": identity},
        return_dict=False,
    )[0]
    return unpack_latents(predicted, height, width)


def pack_latents(latents: Tensor) -> Tensor:
    """Map latents (B, C, h, w) to patches (B, h/2 · w/2, 4·C); h and w are even."""
    patches = latents.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack_latents(patches: Tensor, height: int, width: int) -> Tensor:
    """Undo `pack_latents` for latents of `height` and `width` cells."""
    cells = patches.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, (height // PATCH, width // PATCH))
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def patch_places(height: int, width: int) -> Tensor:
    """Return the places (h/2 · w/2, 3) of the patches of a latent, float32: 0, row, column."""
    rows, columns = torch.meshgrid(torch.arange(height // PATCH), torch.arange(width // PATCH), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1).float()


def load_transformer_base(pipeline: Path, image_encoder: Path, dtype: torch.dtype, device: Any) -> TransformerBase:
    """Load FLUX.1 and a CLIP image encoder from two folders and freeze them; raise ValueError as `load_base` does."""
    from diffusers import FluxTransformer2DModel
    from transformers import (
        CLIPTextModel,
        CLIPTokenizer,
        CLIPVisionModelWithProjection,
        T5EncoderModel,
        T5TokenizerFast,
    )

    two_texts = class_in(read_index(pipeline), "text_encoder_2") is not None
    second = _SECOND_TEXT if two_texts else ()
    require_files(pipeline, "a FLUX.1 model in diffusers layout", *_PARTS, *second)
    for part in (*_PARTS[:3], *second[:1]):
        require_files(pipeline / part, f"the {part} of a FLUX.1 model", "config.json")
    require_files(image_encoder, "a CLIP image encoder", "config.json", "preprocessor_config.json")
    scheduler = load_scheduler(pipeline / "scheduler")
    if not hasattr(scheduler, "scale_noise"):
        raise ValueError(f"{pipeline / 'scheduler'}: a {type(scheduler).__name__}; expected one of flow matching")
    models = [
        load_autoencoder(pipeline / "vae", dtype=dtype),
        load_network(FluxTransformer2DModel, pipeline / "transformer", torch_dtype=dtype),
        load_network(CLIPTextModel, pipeline / "text_encoder", dtype=dtype),
        load_network(CLIPVisionModelWithProjection, image_encoder, dtype=dtype),
        *([load_network(T5EncoderModel, pipeline / "text_encoder_2", dtype=dtype)] if two_texts else []),
    ]
    vae, transformer, text_encoder, vision, *others = (one.to(device).eval().requires_grad_(False) for one in models)
    _check_widths(pipeline, transformer, vae, text_encoder, *others)
    return TransformerBase(
        vae=vae,
        denoiser=transformer,
        text_encoder=text_encoder,
        tokenizer=load_network(CLIPTokenizer, pipeline / "tokenizer"),
        scheduler=scheduler,
        image_encoder=vision,
        crop_transform=CropTransform.from_folder(image_encoder),
        pipeline_folder=pipeline,
        image_encoder_folder=image_encoder,
        text_encoder_2=others[0] if two_texts else None,
        tokenizer_2=load_network(T5TokenizerFast, pipeline / "tokenizer_2") if two_texts else None,
    )


def _check_widths(pipeline: Path, transformer: Any, vae: Any, text_encoder: Any, second: Any = None) -> None:
    """Raise ValueError, naming both sides, where the parts of a base do not fit each other."""
    config, words = transformer.config, text_encoder if second is None else second
    fits = {
        "in_channels": (
            config.in_channels,
            PATCH * PATCH * vae.config.latent_channels,
            "4 times the latents' channels",
        ),
        "joint_attention_dim": (config.joint_attention_dim, words.config.hidden_size, "the width of the text"),
        "pooled_projection_dim": (
            config.pooled_projection_dim,
            text_encoder.config.hidden_size,
            "the width of CLIP's pooled text",
        ),
    }
    for name, (found, expected, what) in fits.items():
        if found != expected:
            raise ValueError(f"{pipeline / 'transformer'}: {name} {found}; expected {expected}, {what}")
