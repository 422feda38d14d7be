"""Random networks: a CLIP, and an adapter all of whose parts have an effect, as after training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from model.foundation.random_models import random_tokenizer
from model.network.adapter import Adapter
from model.network.base import Base
from model.network.templates import build_bank

SIZES = {
    "tokens": 4,
    "lora_rank": 4,
    "reconfigurator_width": 64,
    "reconfigurator_heads": 4,
    "reconfigurator_depth": 1,
    "landmark_features": 32,
    "landmark_width": 2,
}


def random_adapter(base: Base, *, imr: bool = True, seed: int = 0) -> Adapter:
    """Return an adapter of SIZES for `base`, with templates of three photos; without `imr` as after anchoring."""
    torch.manual_seed(seed)
    adapter = Adapter.create(base.denoiser, base.image_encoder, SIZES, 0.3)
    for name, parameter in adapter.processors.named_parameters():
        if ".up." in name or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    if imr:
        adapter.add_reconfigurator(residual=True)
        assert adapter.reconfigurator is not None
        torch.nn.init.normal_(adapter.reconfigurator.proj_out.weight, std=0.05)
        shapes = np.random.default_rng(seed).uniform(0.2, 0.8, (3, 68, 2))
        bank = build_bank(shapes, ["neutral", "happy", "neutral"], ["front", "front", "left"])
        adapter.templates = torch.from_numpy(bank)
    return adapter.eval()


def save_random_clip(folder: Path) -> Path:
    """Write a CLIPModel of 32 px, its tokenizer and its preprocessing as transformers lays them out."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = random_tokenizer()
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = CLIPConfig(
        text_config={**tower, **special, "vocab_size": len(tokenizer), "max_position_embeddings": 77},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
