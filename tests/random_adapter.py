"""An adapter whose every part does something, as after training, on base models with random weights."""

from __future__ import annotations

import numpy as np
import torch

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
    """Return an adapter of SIZES for `base`, with templates of three looks; without `imr` it is only anchored."""
    torch.manual_seed(seed)
    adapter = Adapter.create(base.unet, base.image_encoder, SIZES, 0.3)
    for name, parameter in adapter.processors.named_parameters():
        if ".up." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    if imr:
        adapter.add_reconfigurator(residual=True)
        assert adapter.reconfigurator is not None
        torch.nn.init.normal_(adapter.reconfigurator.proj_out.weight, std=0.05)
        shapes = np.random.default_rng(seed).uniform(0.2, 0.8, (3, 68, 2))
        bank = build_bank(shapes, ["neutral", "happy", "neutral"], ["front", "front", "left"])
        adapter.templates = torch.from_numpy(bank)
    return adapter.eval()
