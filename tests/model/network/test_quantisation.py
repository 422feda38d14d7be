"""Quantise weights: errors, exceptions and names."""

from __future__ import annotations

import torch

from model.network.quantisation import dequantise, quantise


def test_the_error_is_at_most_half_a_step_of_the_row() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "linear.weight": torch.randn(64, 48, generator=generator) * torch.logspace(-4, 2, 64)[:, None],
        "conv.weight": torch.randn(32, 8, 3, 3, generator=generator),
        "zero.weight": torch.zeros(64, 64),
    }
    quantised = quantise(tensors)
    assert {quantised[name].dtype for name in tensors} == {torch.int8}
    restored = dequantise(quantised)
    assert list(restored) == list(tensors)
    for name, value in tensors.items():
        assert restored[name].dtype == torch.float32
        error, largest = (one.flatten(1).abs().amax(1) for one in (restored[name] - value, value))
        assert bool((error <= largest / 254 * 1.01).all()), name


def test_other_tensors_keep_their_kind() -> None:
    tensors = {
        "bias": torch.tensor([0.1, -3.0]),
        "few.weight": torch.rand(3, 4),
        "points": torch.rand(2, 2, 68, 2) + 0.1234567,
        "steps": torch.arange(3),
        "layer.scale": torch.rand(5),
    }
    restored = dequantise(quantise(tensors, keep=("points",)))
    assert {name: value.dtype for name, value in restored.items()} == {
        "bias": torch.float16,
        "few.weight": torch.float16,
        "points": torch.float32,
        "steps": torch.int64,
        "layer.scale": torch.float16,
    }
    assert torch.equal(restored["points"], tensors["points"])


def test_unquantised_tensors_are_unchanged() -> None:
    tensors = {"a.weight": torch.rand(40, 40), "codes": torch.zeros(4, dtype=torch.int8)}
    restored = dequantise(tensors)
    assert all(restored[name] is value for name, value in tensors.items())
