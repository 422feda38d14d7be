"""Small base models of the real classes with random weights, adapters for them, and two random faces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model.face.face import Face
from model.foundation.random_models import RandomModels, save_random_flux, save_random_models
from model.network.adapter import Adapter
from model.network.base import Base, load_base
from tests.random_networks import random_adapter


@pytest.fixture(scope="session")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> RandomModels:
    return save_random_models(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def random_flux(tmp_path_factory: pytest.TempPathFactory) -> RandomModels:
    return save_random_flux(tmp_path_factory.mktemp("transformer"))


@pytest.fixture
def base(random_models: RandomModels) -> Base:
    return load_base(random_models.pipeline, random_models.image_encoder)


@pytest.fixture
def make_adapter() -> Callable[..., Adapter]:
    return random_adapter


@pytest.fixture
def faces() -> list[Face]:
    rng = np.random.default_rng(5)
    faces = []
    for _ in range(2):
        embedding = rng.normal(size=512).astype(np.float32)
        crop = np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        shape = rng.uniform(0.2, 0.8, (68, 2)).astype(np.float32)
        faces.append(Face(embedding / np.linalg.norm(embedding), crop, shape, "neutral", "front"))
    return faces
