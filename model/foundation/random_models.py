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
    from diffusers import UNet2DConditionModel

    folder = _checked(folder, cross_attention_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = random_tokenizer()
        text_encoder = _text_encoder(tokenizer, cross_attention_dim)
        vae = _autoencoder(sample_size)
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
        image_encoder = _image_encoder(image_size, image_width)
    save_stable_diffusion(
        folder / "sd",
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=ddim(prediction_type=prediction_type),
    )
    return RandomModels(folder / "sd", _save_image_encoder(image_encoder, folder, image_size))


def save_random_flux(
    folder: Path,
    *,
    width: int = 64,
    text_width: int = 40,
    sample_size: int = 16,
    blocks: tuple[int, int] = (1, 2),
    heads: int = 2,
    image_size: int = 64,
    image_width: int = 48,
    two_texts: bool = True,
    guidance_embeds: bool = False,
    seed: int = 0,
) -> RandomModels:
    """Save a Flux pipeline and a CLIP image encoder with random weights under `folder`.

    Latents are as in `save_random_models`, and `width` is that of the pooled text and of the identity tokens. `blocks`:
    how many of two streams and of one. The text is that of a T5 encoder of `text_width`; without `two_texts`, that of
    CLIP. Raises ValueError if `width` is not a multiple of 64, the width of the face encoder's heads.
    """
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    folder = _checked(folder, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer, tokenizer_2, text_encoder_2 = random_tokenizer(), None, None
        text_encoder, vae = _text_encoder(tokenizer, width), _autoencoder(sample_size)
        if two_texts:
            tokenizer_2 = random_t5_tokenizer()
            sizes = {"d_model": text_width, "d_kv": text_width // 2, "d_ff": 2 * text_width}
            text_encoder_2 = T5EncoderModel(
                T5Config(vocab_size=len(tokenizer_2), num_layers=1, num_heads=2, **sizes)
            ).eval()
        transformer = FluxTransformer2DModel(
            in_channels=4 * vae.config.latent_channels,
            num_layers=blocks[0],
            num_single_layers=blocks[1],
            attention_head_dim=16,
            num_attention_heads=heads,
            joint_attention_dim=text_width if two_texts else width,
            pooled_projection_dim=width,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        )
        image_encoder = _image_encoder(image_size, image_width)
    save_flux(
        folder / "flux",
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer.eval(),
    )
    return RandomModels(folder / "flux", _save_image_encoder(image_encoder, folder, image_size))


def _checked(folder: Path, width: int) -> Path:
    if width % 64:
        raise ValueError(f"cross_attention_dim {width}: expected a multiple of 64")
    return Path(folder)


def _text_encoder(tokenizer: Any, width: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


def _autoencoder(sample_size: int) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=4 * sample_size,
        scaling_factor=0.18215,
    ).eval()


def _image_encoder(size: int, width: int) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=size,
            patch_size=size // 4,
        )
    ).eval()


def _save_image_encoder(image_encoder: Any, folder: Path, size: int) -> Path:
    image_encoder.save_pretrained(folder / "image_encoder")
    save_preprocessor(folder / "image_encoder", size)
    return folder / "image_encoder"


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


def save_flux(folder: Path, **parts: Any) -> None:
    """Save a Flux pipeline of `parts` into `folder`, without a T5 encoder unless they have one."""
    from diffusers import FluxPipeline

    without = {"text_encoder_2": None, "tokenizer_2": None}
    FluxPipeline(**{**without, **parts}).save_pretrained(folder, safe_serialization=True)


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


def random_t5_tokenizer() -> Any:
    """Return a T5Tokenizer for up to 32 tokens; its vocabulary is single letters."""
    from transformers import T5Tokenizer

    letters = "▁abcdefghijklmnopqrstuvwxyz ,."
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(letter, -float(number)) for number, letter in enumerate(letters)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=32)
