"""Models of the true size of Stable Diffusion 1.5 and of the face encoder's CLIP, with random weights.

Their pictures are meaningless; time, memory and file layout are those of the real models.
"""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from typing import Any

from model.foundation.random_models import RandomModels, ddim, random_tokenizer

UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    # The number of heads, despite its name, which is that of the published configuration.
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
# Stable Diffusion XL: attention in the deeper levels only, up to ten transformer blocks each.
XL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
}
# The second text encoder of XL, beside the one above.
XL_TEXT: dict[str, Any] = {
    **TEXT,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
}
# CLIP ViT-H/14, the vision model of IP-Adapter's and DynamicID's face encoders.
VISION: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1024,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}
# Identity tokens per person, and the length of a text in tokens.
TOKENS, TEXT_LENGTH = 4, 77


def random_unet(config: dict[str, Any] | None = None, *, seed: int = 0) -> Any:
    """Return a frozen random UNet in eval mode, float32 on the CPU, by default of the size of Stable Diffusion 1.5."""
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**(config or UNET))
    if list(unet.buffers()):
        raise ValueError("this UNet has buffers, which are not randomised: give a UNet without buffers")
    unet = unet.to_empty(device="cpu").eval().requires_grad_(False)
    # One block of noise is repeated, since sampling 10⁹ numbers takes longer than the measurement. Its length is prime,
    # so that rows of a weight differ.
    noise = torch.randn(1_048_573, generator=torch.Generator().manual_seed(seed))
    for name, weight in unet.named_parameters():
        if weight.ndim == 1:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        flat, deviation = weight.view(-1), (3 * weight[0].numel()) ** -0.5
        for start in range(0, flat.numel(), noise.numel()):
            part = flat[start : start + noise.numel()]
            torch.mul(noise[: part.numel()], deviation, out=part)
    return unet


def save_full_size(
    folder: Path, *, dtype: str = "float16", seed: int = 0, side: int = 512, autoencoder: Path | None = None
) -> RandomModels:
    """Save a whole Stable Diffusion 1.5 pipeline and a CLIP ViT-H/14 with random weights under `folder`.

    In `float16` this takes 3.4 GB on disk and at most 5 GB of memory: one network is created at a time. The tokenizer
    is a real one with a small vocabulary; all networks have the published shapes, whatever the `side` of the pictures
    is, in pixels, a multiple of 64. `autoencoder` is as in `use_autoencoder`.
    """
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pipeline, image_encoder = Path(folder) / "sd", Path(folder) / "image_encoder"
    tokenizer = random_tokenizer()
    text = CLIPTextConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **TEXT,
    )
    networks = {
        pipeline / "unet": lambda: random_unet({**UNET, "sample_size": side // 8}, seed=seed),
        pipeline / "vae": lambda: AutoencoderKL(**VAE | {"sample_size": side}),
        pipeline / "text_encoder": lambda: CLIPTextModel(text),
        image_encoder: lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for where, make in networks.items():
            make().to(getattr(torch, dtype)).eval().save_pretrained(where)
            gc.collect()
    tokenizer.save_pretrained(pipeline / "tokenizer")
    ddim().save_pretrained(pipeline / "scheduler")
    _write_model_index(pipeline)
    CLIPImageProcessorPil().save_pretrained(image_encoder)
    if autoencoder is not None:
        use_autoencoder(pipeline, autoencoder)
    return RandomModels(pipeline, image_encoder)


def use_autoencoder(pipeline: Path, autoencoder: Path) -> None:
    """Replace the autoencoder of a pipeline by that of another folder, so that faces survive encoding and decoding."""
    shutil.rmtree(pipeline / "vae")
    shutil.copytree(autoencoder, pipeline / "vae")
    index = pipeline / "model_index.json"
    named = json.loads((pipeline / "vae" / "config.json").read_bytes())["_class_name"]
    parts = json.loads(index.read_bytes()) | {"vae": ["diffusers", named]}
    index.write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")


def _write_model_index(pipeline: Path) -> None:
    """Write model_index.json, which names the class of each folder."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (pipeline / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
