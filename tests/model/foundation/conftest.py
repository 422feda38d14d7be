"""Complete adapters of small random parts, for any base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.network.adapter import Adapter
from model.network.base import load_base
from model.network.templates import build_bank

SIZES = {
    "tokens": 4,
    "lora_rank": 2,
    "reconfigurator_width": 64,
    "reconfigurator_heads": 2,
    "reconfigurator_depth": 1,
    "landmark_features": 16,
    "landmark_width": 2,
}
MakeAdapter = Callable[..., Adapter]


@pytest.fixture
def make_adapter() -> MakeAdapter:
    """Return a maker: on the base in `weights`, saved into `folder`; without IMR and templates if not `complete`."""

    def make(weights: Path, folder: Path, *, complete: bool = True, seed: int = 0) -> Adapter:
        base = load_base(weights / "sd", weights / "image_encoder")
        torch.manual_seed(seed)
        adapter = Adapter.create(base.unet, base.image_encoder, SIZES, 0.3)
        if complete:
            adapter.add_reconfigurator(residual=True)
            shapes = np.random.default_rng(0).uniform(0.2, 0.8, (3, 68, 2))
            bank = build_bank(shapes, ["neutral", "happy", "neutral"], ["front", "front", "left"])
            adapter.templates = torch.from_numpy(bank)
        adapter.save(folder, base.reference("sd", "image_encoder"))
        return adapter.eval()

    return make
