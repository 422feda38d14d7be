"""A byte a weight: how far it is off, what is left alone, and that it comes back under its own name."""

from __future__ import annotations

import torch

from model.network.compact import compact, whole


def test_matrices_and_kernels_come_back_within_half_a_step_of_their_row() -> None:
    generator = torch.Generator().manual_seed(0)
    kept = {
        "linear.weight": torch.randn(64, 48, generator=generator) * torch.logspace(-4, 2, 64)[:, None],
        "conv.weight": torch.randn(32, 8, 3, 3, generator=generator),
        "silent.weight": torch.zeros(64, 64),
    }
    small = compact(kept)
    assert {small[name].dtype for name in kept} == {torch.int8}
    back = whole(small)
    assert list(back) == list(kept)
    for name, value in kept.items():
        assert back[name].dtype == torch.float32
        error, largest = (one.flatten(1).abs().amax(1) for one in (back[name] - value, value))
        assert bool((error <= largest / 254 * 1.01).all()), name


def test_the_rest_keeps_its_kind() -> None:
    kept = {
        "bias": torch.tensor([0.1, -3.0]),
        "few.weight": torch.rand(3, 4),
        "points": torch.rand(2, 2, 68, 2) + 0.1234567,
        "steps": torch.arange(3),
        "layer.scale": torch.rand(5),
    }
    back = whole(compact(kept, keep=("points",)))
    assert {name: value.dtype for name, value in back.items()} == {
        "bias": torch.float16,
        "few.weight": torch.float16,
        "points": torch.float32,
        "steps": torch.int64,
        "layer.scale": torch.float16,
    }
    assert torch.equal(back["points"], kept["points"])


def test_what_was_never_compact_is_as_it_was() -> None:
    kept = {"a.weight": torch.rand(40, 40), "codes": torch.zeros(4, dtype=torch.int8)}
    back = whole(kept)
    assert all(back[name] is value for name, value in kept.items())
