"""Training may begin with the weights of an earlier adapter of the same sizes, and says what differs in another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.adapter import Adapter
from model.base import Base
from model.training.anchoring import begin_with


def test_it_takes_what_the_stage_trains_and_nothing_else(base: Base, make_adapter: Callable[..., Adapter]) -> None:
    champion, fresh = make_adapter(base, seed=1), make_adapter(base, imr=False, seed=2)
    champion.null_tokens.data.normal_()
    begin_with(fresh, champion, Path("champion"))
    theirs = champion.state_dict()
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    assert fresh.reconfigurator is None
    fresh.null_tokens.data.zero_()
    assert champion.null_tokens.abs().sum() > 0


def test_other_sizes_are_named(base: Base, make_adapter: Callable[..., Adapter]) -> None:
    sizes = {**make_adapter(base).sizes, "lora_rank": 2}
    other = Adapter.create(base.unet, base.image_encoder, sizes, 0.3)
    with pytest.raises(ValueError, match=r"champion: this adapter has other sizes .*start from scratch"):
        begin_with(make_adapter(base, imr=False), other, Path("champion"))
