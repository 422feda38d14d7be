"""Small random bases of other families than Stable Diffusion 1.x: versions 2.x and XL."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from model.foundation.random_models import random_tokenizer

WIDTH = 64
# The text encoders of XL differ in width, and the pooled text is that of the second.
XL_WIDTHS = 24, 40
# Unlike that of 1.x, the UNets of these families have linear projections and another number of heads per level.
_FAMILY: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "cross_attention_dim": WIDTH,
    "norm_num_groups": 8,
}


def save_sd2(folder: Path, plain: Path) -> Path:
    """2.x: v-prediction and attention in float32; the other networks are those of the base in `plain`."""
    shutil.copytree(plain, folder)
    unet = UNet2DConditionModel(
        **_FAMILY,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        upcast_attention=True,
    )
    unet.save_pretrained(folder / "unet")
    DDIMScheduler(prediction_type="v_prediction", clip_sample=False, steps_offset=1).save_pretrained(
        folder / "scheduler"
    )
    return folder


def save_xl(folder: Path, plain: Path) -> Path:
    """XL: two text encoders, size and pooled text as added conditions, attention in deeper levels only."""
    tokenizer, (first, second) = random_tokenizer(), XL_WIDTHS
    unet = UNet2DConditionModel(
        **_FAMILY,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + second,
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(plain / "vae"),
        text_encoder=CLIPTextModel(_text_config(first, tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(second, tokenizer)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def _text_config(width: int, tokenizer: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="gelu",
    )
