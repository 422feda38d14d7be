"""The shared loop minimises a loss and resumes exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.foundation import loop
from model.foundation.loop import bfloat16_is_faster, fit, learning_rate


def problem(limit: int | None = None):
    """Return a regression whose losses raise at step `limit`, as a kill would."""
    torch.manual_seed(0)
    module = nn.Linear(4, 1)
    truth = torch.tensor([[1.0, -2.0, 3.0, 0.5]])

    def losses(number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        if number == limit:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.normal(size=(16, 4)).astype(np.float32)) + 0.01 * torch.randn(16, 4)
        return {"loss": (module(x) - x @ truth.T).square().mean()}

    return module, losses


def test_the_loss_falls(tmp_path: Path) -> None:
    module, losses = problem()
    before = float(losses(10_000, np.random.default_rng(5))["loss"].detach())
    fit(module, losses, tmp_path, name="t", steps=300, rate=0.05, seed=0, ema=0.9)
    assert float(losses(10_000, np.random.default_rng(5))["loss"].detach()) < before / 20


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"name": "t", "steps": 40, "rate": 0.05, "seed": 3, "every": 10}
    whole, losses = problem()
    fit(whole, losses, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(*problem(limit=27), tmp_path / "cut", **settings)
    resumed, losses = problem()
    fit(resumed, losses, tmp_path / "cut", **settings)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_batch_statistics_are_averaged_with_the_weights(tmp_path: Path) -> None:
    module = nn.Sequential(nn.BatchNorm1d(1))
    shown: list[float] = []

    def losses(number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        loss = module(torch.full((4, 1), 10.0 * number)).mean()
        shown.append(float(module[0].running_mean))
        return {"loss": loss}

    fit(module, losses, tmp_path, name="t", steps=3, rate=0.0, seed=0)
    average = 0.0
    for number, mean in enumerate(shown):
        decay = (1 + number) / (10 + number)
        average = decay * average + (1 - decay) * mean
    assert float(module[0].running_mean) == pytest.approx(average)
    assert int(module[0].num_batches_tracked) == 3


def test_the_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(step, 1000, 1.0) for step in range(1000)]
    assert rates[0] < 0.02
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.03


@pytest.mark.parametrize(
    ("amx", "instructions", "vendor", "faster"),
    [
        (True, True, "GenuineIntel", True),
        (False, True, "GenuineIntel", False),
        (False, True, "AuthenticAMD", True),
        (False, False, "AuthenticAMD", False),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(
    amx: bool, instructions: bool, vendor: str, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr(loop, "_processors", lambda: f"vendor_id\t: {vendor}\n")
    assert bfloat16_is_faster.__wrapped__() is faster
