"""The IMR's two loss terms and its baselines."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from model.network.adapter import Adapter
from model.network.base import Base
from model.network.text_encoding import TextStates
from model.training import reconfiguration
from model.training.baselines import ReconfigurationBatch, compare_with_baselines
from model.training.reconfiguration import NoiseTermBatch, ReconfigurationModel, Sampler
from pipelines.core.sections.training import TrainImr


@pytest.fixture
def model(base: Base, make_adapter: Callable[..., Adapter]) -> ReconfigurationModel:
    adapter = make_adapter(base)
    adapter.requires_grad_(False)
    adapter.reconfigurator.requires_grad_(True)
    adapter.landmark_encoder.requires_grad_(True)
    adapter.attach(base.unet)
    return ReconfigurationModel(adapter, base, TrainImr(steps=10, ldc_weight=2.0)).train()


def batch_of(sources: int = 2, targets: int = 3) -> ReconfigurationBatch:
    rng = torch.Generator().manual_seed(1)
    every = sources * targets

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng)

    def pictures(count: int) -> torch.Tensor:
        return (torch.rand((count, 1, 96, 96), generator=rng) > 0.99).float() * 2 - 1

    return ReconfigurationBatch(
        normal(sources, 4, 64),
        pictures(sources),
        normal(sources, 64),
        pictures(every),
        normal(every, 64),
        normal(every, 4, 64),
    )


def noised() -> NoiseTermBatch:
    rng = torch.Generator().manual_seed(2)
    latents, noise = torch.randn((2, 2, 4, 16, 16), generator=rng)
    text = TextStates(torch.randn((2, 77, 64), generator=rng), torch.zeros(2, 0))
    return NoiseTermBatch(torch.tensor([1, 4]), latents, noise, torch.tensor([100, 700]), text)


def test_both_terms_fall(model: ReconfigurationModel) -> None:
    optimizer = torch.optim.AdamW([x for x in model.parameters() if x.requires_grad], lr=2e-3)
    before = None
    for _ in range(25):
        losses = model(batch_of(), noised())
        before = before or {name: float(value.detach()) for name, value in losses.items()}
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    for name in ("loss", "tokens", "noise"):
        assert float(losses[name].detach()) < 0.7 * before[name], name


def test_the_noise_term_is_zero_where_the_tokens_are_right(model: ReconfigurationModel) -> None:
    batch = batch_of()
    with torch.no_grad():
        right = ReconfigurationBatch(**{**vars(batch), "expected": batch.predict(model.frozen[0])})
        losses = model(right, noised())
    assert float(losses["noise"]) < 1e-6
    assert float(losses["loss"]) < 1e-6


def test_the_noise_term_is_weighted_and_left_out_when_not_asked_for(model: ReconfigurationModel) -> None:
    with torch.no_grad():
        losses = model(batch_of(), noised())
        alone = model(batch_of())
    assert float(losses["loss"]) == pytest.approx(float(losses["tokens"]) + 2.0 * float(losses["noise"]), rel=1e-5)
    assert set(alone) == {"loss", "tokens"}


def test_baselines_are_the_source_and_the_mean(model: ReconfigurationModel) -> None:
    model.eval()
    batch = batch_of(sources=1, targets=3)
    mean = batch.expected.mean(dim=0, keepdim=True)
    found = compare_with_baselines(model.frozen[0], [(batch, mean)], torch.device("cpu"))
    assert found["copy_source"] == pytest.approx(float((batch.tokens - batch.expected).square().mean()), rel=1e-5)
    assert found["person_mean"] == pytest.approx(float(batch.expected.var(dim=0, correction=0).mean()), rel=1e-5)
    assert found["imr"] == pytest.approx(
        float((batch.predict(model.frozen[0]) - batch.expected).square().mean().detach()), rel=1e-5
    )


def test_gradient_checkpointing_changes_no_gradient(model: ReconfigurationModel) -> None:
    # In training mode every call changes batch statistics, so compare weights only.
    model.eval()
    found = []
    unet = model.frozen[1].unet
    for change in (unet.disable_gradient_checkpointing, unet.enable_gradient_checkpointing):
        change()
        model.zero_grad()
        model(batch_of(), noised())["loss"].backward()
        found.append([value.grad.clone() for value in model.parameters() if value.grad is not None])
    assert len(found[0]) > 10
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(checkpointed, plain, atol=1e-7, rtol=1e-5)


def test_two_processes_take_the_people_and_targets_of_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconfiguration, "make_batch", lambda _, *drawn: drawn)
    people = [np.arange(5 * person, 5 * person + 3 + person % 2) for person in range(6)]
    data: Any = SimpleNamespace(photos=SimpleNamespace(by_person=lambda: people))

    def drawn(batch: int, rank: int, world: int) -> Any:
        settings = TrainImr(steps=10, ldc_weight=0.0, batch_size=batch)
        return Sampler(data, settings, total=1000, rank=rank, world=world)(3)[0]

    for whole, first, second in zip(drawn(4, 0, 1), drawn(2, 0, 2), drawn(2, 1, 2), strict=True):
        np.testing.assert_array_equal(np.concatenate([first, second]), whole)
