"""Training can start from an adapter of the same sizes or of a narrower LoRA; other differences are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.network.adapter import Adapter
from model.network.base import Base
from model.network.lora import LoRA
from model.network.methods import IP_ADAPTER_FACEID_PLUS
from model.training.initial_weights import initialise_from


def test_it_takes_what_the_stage_trains_and_nothing_else(base: Base, make_adapter: Callable[..., Adapter]) -> None:
    champion, fresh = make_adapter(base, seed=1), make_adapter(base, imr=False, seed=2)
    champion.null_tokens.data.normal_()
    initialise_from(fresh, champion, Path("champion"))
    theirs = champion.state_dict()
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    assert fresh.reconfigurator is None
    fresh.null_tokens.data.zero_()
    assert champion.null_tokens.abs().sum() > 0


def test_a_wider_lora_computes_the_same_at_first(base: Base, make_adapter: Callable[..., Adapter]) -> None:
    narrow = make_adapter(base, imr=False, seed=1)
    for name, value in narrow.processors.state_dict().items():
        if "_lora." in name:
            value.copy_(torch.randn_like(value))
    rank = narrow.sizes["lora_rank"]
    sizes = {**narrow.sizes, "lora_rank": rank + 3}
    wide = Adapter.create(base.unet, base.image_encoder, sizes, 0.3)
    initialise_from(wide, narrow, Path("narrow"))
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(wide.processors.modules(), narrow.processors.modules(), strict=True)
        if isinstance(mine, LoRA) and isinstance(theirs, LoRA)
    ]
    assert pairs
    for mine, theirs in pairs:
        assert mine.down.weight.shape[0] == rank + 3
        states = torch.randn(5, mine.down.in_features)
        torch.testing.assert_close(mine(states), theirs(states))
        new = mine.down.weight[rank:]
        assert 0.3 / rank < new.std() < 3 / rank, "directions that can be learned"
        assert not mine.up.weight[:, rank:].any()


@pytest.mark.parametrize("changed", [{"lora_rank": 9}, {"tokens": 2}, {"landmark_features": 7}])
def test_other_sizes_are_named(base: Base, make_adapter: Callable[..., Adapter], changed: dict[str, int]) -> None:
    sizes = {**make_adapter(base).sizes, **changed}
    other = Adapter.create(base.unet, base.image_encoder, sizes, 0.3)
    ((name, value),) = changed.items()
    with pytest.raises(
        ValueError, match=rf"champion: this adapter has another method or sizes \({name} {value}, here .*scratch"
    ):
        initialise_from(make_adapter(base, imr=False), other, Path("champion"))


def test_an_adapter_of_another_method_is_refused(base: Base, make_adapter: Callable[..., Adapter]) -> None:
    """The tensors of both have the same names and shapes."""
    adapter = make_adapter(base, imr=False)
    plus = Adapter.create(base.unet, base.image_encoder, adapter.sizes, method=IP_ADAPTER_FACEID_PLUS)
    assert plus.state_dict().keys() == adapter.state_dict().keys()
    with pytest.raises(ValueError, match=r"champion: .*method ip_adapter_faceid_plus, here dynamicid"):
        initialise_from(adapter, plus, Path("champion"))
