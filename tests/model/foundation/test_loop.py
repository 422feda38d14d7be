"""The shared loop lowers a loss, and an interrupted training ends as one that was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.foundation.loop import fit, learning_rate


def problem(limit: int | None = None):
    """A regression whose step raises at number `limit`, as a kill would."""
    torch.manual_seed(0)
    module = nn.Linear(4, 1)
    truth = torch.tensor([[1.0, -2.0, 3.0, 0.5]])

    def step(number: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        if number == limit:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.normal(size=(16, 4)).astype(np.float32)) + 0.01 * torch.randn(16, 4)
        return (module(x) - x @ truth.T).square().mean(), {}

    return module, step


def test_the_loss_falls(tmp_path: Path) -> None:
    module, step = problem()
    before = float(step(10_000, np.random.default_rng(5))[0].detach())
    state = fit(module, step, tmp_path, name="t", steps=300, rate=0.05, seed=0, ema=0.9)
    module.load_state_dict(state)
    after = float(step(10_000, np.random.default_rng(5))[0].detach())
    assert after < before / 20


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    module, step = problem()
    whole = fit(module, step, tmp_path / "whole", name="t", steps=40, rate=0.05, seed=3, every=10)
    module, step = problem(limit=27)
    with pytest.raises(KeyboardInterrupt):
        fit(module, step, tmp_path / "cut", name="t", steps=40, rate=0.05, seed=3, every=10)
    module, step = problem()
    resumed = fit(module, step, tmp_path / "cut", name="t", steps=40, rate=0.05, seed=3, every=10)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_the_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(step, 1000, 1.0) for step in range(1000)]
    assert rates[0] < 0.02
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.03
