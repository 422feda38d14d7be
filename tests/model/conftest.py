"""Small base models of the real classes with random weights, an adapter on them, and two people nobody is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.face.face import Face
from model.foundation.random_models import RandomModels, save_random_models
from model.network.adapter import Adapter
from model.network.base import Base, load_base
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


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> RandomModels:
    return save_random_models(tmp_path_factory.mktemp("base"))


@pytest.fixture
def base(random_models: RandomModels) -> Base:
    return load_base(random_models.pipeline, random_models.image_encoder)


@pytest.fixture
def make_adapter() -> Callable[..., Adapter]:
    """Return an adapter whose every part does something, as after training."""

    def make(base: Base, *, imr: bool = True, seed: int = 0) -> Adapter:
        torch.manual_seed(seed)
        adapter = Adapter.create(base.unet, base.image_encoder, SIZES, 0.3)
        for name, parameter in adapter.processors.named_parameters():
            if ".up." in name:
                torch.nn.init.normal_(parameter, std=0.05)
        if imr:
            adapter.add_reconfigurator(residual=True)
            torch.nn.init.normal_(adapter.reconfigurator.proj_out.weight, std=0.05)
            shapes = np.random.default_rng(seed).uniform(0.2, 0.8, (3, 68, 2))
            bank = build_bank(shapes, ["neutral", "happy", "neutral"], ["front", "front", "left"])
            adapter.templates = torch.from_numpy(bank)
        return adapter.eval()

    return make


@pytest.fixture
def faces() -> list[Face]:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(2):
        embedding = rng.normal(size=512).astype(np.float32)
        crop = np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        shape = rng.uniform(0.2, 0.8, (68, 2)).astype(np.float32)
        found.append(Face(embedding / np.linalg.norm(embedding), crop, shape))
    return found
