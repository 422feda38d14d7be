"""Fold LoRA into the base weights and restore them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.network.adapter import Adapter
from model.network.base import Base
from model.network.identity_state import IdentityState


@pytest.fixture
def adapter(base: Base, make_adapter: Callable[..., Adapter]) -> Adapter:
    adapter = make_adapter(base)
    adapter.attach(base.unet)
    return adapter


@torch.no_grad()
def predict(base: Base, *, scale: float = 1.0, lora_scale: float | None = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 4, 16, 16, generator=generator)
    text = torch.randn(2, 77, 64, generator=generator)
    tokens = torch.randn(2, 8, 64, generator=generator)
    if lora_scale is None:
        return base.unet(latents, torch.tensor(500), text).sample
    state = IdentityState(tokens, scale=scale, lora_scale=lora_scale)
    return base.unet(latents, torch.tensor(500), text, cross_attention_kwargs={"identity": state}).sample


def weights(base: Base) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in base.unet.state_dict().items() if ".processor." not in name}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def test_folding_changes_the_weights_and_not_the_output(base: Base, adapter: Adapter) -> None:
    before, unfolded = weights(base), predict(base)
    assert largest(unfolded, predict(base, lora_scale=0.0)) > 1e-2
    adapter.fold(base.unet)
    after = weights(base)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # The layers that run in every step: all four of self-attention, q and out of cross-attention.
    assert {name.rsplit(".attn", 1)[1] for name in changed} == {
        "1.to_q.weight", "1.to_k.weight", "1.to_v.weight", "1.to_out.0.weight", "2.to_q.weight", "2.to_out.0.weight",
    }  # fmt: skip
    error = largest(predict(base), unfolded)
    print(f"folding: largest change of the output {error:.1e}")
    assert error <= 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_unfolding_restores_every_bit(base: Base, adapter: Adapter, dtype: torch.dtype) -> None:
    base.unet.to(dtype)
    before = weights(base)
    for scale in (1.0, 0.3, -2.0):
        adapter.fold(base.unet, scale)
        assert adapter.folded == scale
        assert not same(weights(base), before)
    adapter.unfold()
    assert adapter.folded == 0
    assert same(weights(base), before)


def test_detaching_unfolds(base: Base, adapter: Adapter) -> None:
    adapter.detach(base.unet)
    before, plain = weights(base), predict(base, lora_scale=None)
    adapter.attach(base.unet)
    adapter.fold(base.unet)
    adapter.detach(base.unet)
    assert same(weights(base), before)
    assert torch.equal(predict(base, lora_scale=None), plain)


@pytest.mark.parametrize("lora_scale", [None, 0.0, 0.5, 2.0])
def test_calls_with_another_lora_scale_are_unchanged(base: Base, adapter: Adapter, lora_scale: float | None) -> None:
    expected = predict(base, lora_scale=lora_scale)
    adapter.fold(base.unet)
    assert largest(predict(base, lora_scale=lora_scale), expected) <= 1e-4


def test_folded_at_another_scale(base: Base, adapter: Adapter) -> None:
    expected = predict(base, lora_scale=0.4)
    adapter.fold(base.unet, 0.4)
    assert largest(predict(base, lora_scale=0.4), expected) <= 1e-4


def test_folded_weights_cannot_be_trained_or_copied(base: Base, adapter: Adapter) -> None:
    adapter.fold(base.unet)
    with pytest.raises(ValueError, match=r"unfold\(\) before training"):
        adapter.train()
    with pytest.raises(ValueError, match=r"unfold\(\) first"):
        copy.deepcopy(adapter)
    adapter.unfold()
    adapter.train()
    with pytest.raises(ValueError, match="training mode"):
        adapter.fold(base.unet)


def test_only_an_attached_adapter_folds(base: Base, adapter: Adapter, make_adapter: Callable[..., Adapter]) -> None:
    before = weights(base)
    with pytest.raises(ValueError, match="attach it first"):
        make_adapter(base, seed=1).fold(base.unet)
    assert same(weights(base), before)
