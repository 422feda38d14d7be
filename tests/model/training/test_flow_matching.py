"""Anchoring on a transformer base: the loss, mixed precision, and what is cached of texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.foundation.random_models import RandomModels
from model.network.base import Base, load_base
from model.training.anchoring import AnchoringBatch, AnchoringModel, anchoring_data, make_batch
from model.training.encode import RecordEncoder
from model.training.optimisation import adamw
from model.training.photos import Photos
from model.training.seeded_draws import generator
from pipelines.core.sections.training import TrainAnchoring
from tests.random_networks import random_adapter

SETTINGS = TrainAnchoring(steps=4, batch_size=4, learning_rate=1e-3)


@pytest.fixture
def flux(random_flux: RandomModels) -> Base:
    return load_base(random_flux.pipeline, random_flux.image_encoder)


@pytest.fixture
def batch(flux: Base, tmp_path: Path, make_photos: Callable[..., Photos]) -> AnchoringBatch:
    data = anchoring_data(flux, make_photos(1, 2, 3, 4), RecordEncoder(tmp_path, 4, None), 64)
    rng = generator(0, "test", 1)
    made = make_batch(data, np.arange(4), rng, np.array([50, 300, 600, 900]), (0.0, 0.0, 0.0))
    return replace(made, dropped=torch.tensor([False, True, False, False]))


def model_on(base: Base) -> AnchoringModel:
    adapter = random_adapter(base, imr=False).train()
    adapter.attach(base.denoiser)
    return AnchoringModel(adapter, base, SETTINGS)


def test_cached_texts_are_those_of_both_encoders(flux: Base, batch: AnchoringBatch) -> None:
    expected = flux.text_states(["a photo"])
    assert batch.text.states.shape == (4, 32, 40)
    torch.testing.assert_close(batch.text.states[:1], expected.states, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(batch.text.pooled[:1], expected.pooled, atol=2e-3, rtol=2e-3)


def test_the_velocity_is_learnt_and_the_base_stays(
    flux: Base, batch: AnchoringBatch, accelerator: Callable[[str], Any]
) -> None:
    frozen = {name: value.clone() for name, value in flux.denoiser.state_dict().items()}
    model = model_on(flux)
    optimisation = adamw(model, SETTINGS, accelerator("no"))
    found = []
    for _ in range(4):
        loss = optimisation.ready(batch)["loss"]
        found.append(float(loss.detach()))
        optimisation.step(loss)
    assert found[-1] < found[0]
    for name, value in flux.denoiser.state_dict().items():
        assert ".processor." in name or torch.equal(value, frozen[name]), name


def test_mixed_precision_has_nearly_the_same_gradients(
    flux: Base, random_flux: RandomModels, batch: AnchoringBatch, accelerator: Callable[[str], Any]
) -> None:
    whole = model_on(flux)
    expected = whole(batch)["loss"]
    expected.backward()
    model = model_on(load_base(random_flux.pipeline, random_flux.image_encoder, dtype="bfloat16"))
    model.load_state_dict(whole.state_dict())
    optimisation = adamw(model, SETTINGS, accelerator("bf16"))
    loss = optimisation.ready(batch)["loss"]
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=0.02)
    loss.backward()
    ours, theirs = (
        torch.cat([one.grad.flatten() for one in which.parameters() if one.grad is not None])
        for which in (model, whole)
    )
    assert float(torch.cosine_similarity(ours, theirs, dim=0)) > 0.98
