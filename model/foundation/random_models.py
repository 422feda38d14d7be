"""Randomly initialised base models in the real classes and layouts.

They generate noise, but tests and trial runs can load, condition, train and save them without any downloaded weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.network.crop_transform import CLIP_MEAN, CLIP_STD

# Pairs of letters that become one token, so that ordinary prompts differ in length.
_PIECES = ("ph", "ot", "of", "in", "an", "th", "er", "on", "re", "ed")


@dataclass(frozen=True)
class RandomModels:
    """Folders of the models: `pipeline` in the Stable Diffusion layout, `image_encoder` in the CLIP vision layout."""

    pipeline: Path
    image_encoder: Path


def save_random_models(
    folder: Path,
    *,
    cross_attention_dim: int = 64,
    sample_size: int = 16,
    channels: tuple[int, ...] = (16, 32),
    heads: int = 2,
    image_size: int = 64,
    image_width: int = 48,
    prediction_type: str = "epsilon",
    seed: int = 0,
) -> RandomModels:
    """Save a Stable Diffusion pipeline and a CLIP image encoder with random weights under `folder`.

    Latents have 4 channels and side `sample_size`, a quarter of the picture's side (64 px by default). `channels`,
    multiples of 8, are the widths of the UNet's levels. The same arguments give the same weights. Raises ValueError if
    `cross_attention_dim` is not a multiple of 64, the width of the face encoder's heads.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    if cross_attention_dim % 64:
        raise ValueError(f"cross_attention_dim {cross_attention_dim}: expected a multiple of 64")
    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = random_tokenizer()
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=cross_attention_dim,
                intermediate_size=2 * cross_attention_dim,
                projection_dim=cross_attention_dim,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=77,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=4 * sample_size,
            scaling_factor=0.18215,
        )
        levels = len(channels)
        unet = UNet2DConditionModel(
            sample_size=sample_size,
            block_out_channels=channels,
            down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
            layers_per_block=1,
            attention_head_dim=heads,
            cross_attention_dim=cross_attention_dim,
            norm_num_groups=8,
        )
        image_encoder = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=image_width,
                intermediate_size=2 * image_width,
                projection_dim=32,
                num_hidden_layers=3,
                num_attention_heads=4,
                image_size=image_size,
                patch_size=image_size // 4,
            )
        )
    save_stable_diffusion(
        folder / "sd",
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=ddim(prediction_type=prediction_type),
    )
    image_encoder.eval().save_pretrained(folder / "image_encoder")
    save_preprocessor(folder / "image_encoder", image_size)
    return RandomModels(folder / "sd", folder / "image_encoder")


def ddim(**more: Any) -> Any:
    """Return a DDIMScheduler with Stable Diffusion's noise schedule and `more` arguments."""
    from diffusers import DDIMScheduler

    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return DDIMScheduler(**noise, clip_sample=False, set_alpha_to_one=False, steps_offset=1, **more)


def save_stable_diffusion(folder: Path, **parts: Any) -> None:
    """Save a Stable Diffusion pipeline of `parts` into `folder`, without a safety checker."""
    from diffusers import StableDiffusionPipeline

    without = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**parts, **without).save_pretrained(folder, safe_serialization=True)


def save_preprocessor(folder: Path, size: int) -> None:
    """Write the parameters of CLIP's image processor for pictures of `size` px into an image encoder's folder."""
    config = {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": size, "width": size},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": size},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def random_tokenizer() -> Any:
    """Return a CLIPTokenizer for up to 77 tokens; its vocabulary is single bytes and a few pairs of letters."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), *_PIECES, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)},
        merges=[(piece[0], piece[1]) for piece in _PIECES],
        model_max_length=77,
    )
