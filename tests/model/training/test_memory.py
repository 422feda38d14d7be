"""The memory of a training on paper is that of its networks; XL of true size is counted without weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.full_size_models import UNET, XL_UNET
from model.network.adapter import Adapter
from model.network.attention import SemanticActivatedAttention
from model.network.base import Base
from model.training import memory
from model.training.memory import training_memory
from tests.random_networks import SIZES


@pytest.mark.parametrize(("config", "cross", "all_layers"), [(UNET, 16, 32), (XL_UNET, 70, 140)])
def test_every_cross_attention_of_a_base_of_true_size_gets_the_gate(config: dict, cross: int, all_layers: int) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
        adapter = Adapter(unet, 1280, {"lora_rank": 128}, 0.3)
    assert len(adapter.processors) == all_layers
    assert sum(isinstance(one, SemanticActivatedAttention) for one in adapter.processors) == cross
    adapter.attach(unet)
    names = [name for name, one in unet.attn_processors.items() if isinstance(one, SemanticActivatedAttention)]
    assert all(".attn2." in name for name in names)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_weights_and_activations_are_those_of_the_real_networks(
    base: Base, make_adapter: Callable[..., Adapter], checkpointing: bool
) -> None:
    adapter = make_adapter(base, imr=False).train()
    paper = training_memory(dict(base.unet.config), 48, SIZES, dtype=torch.float32, checkpointing=checkpointing)
    assert paper.base == sum(value.nbytes for value in base.unet.parameters())
    assert paper.weights == sum(value.numel() for value in adapter.parameters())
    assert paper.copies == 0
    adapter.attach(base.unet.train())
    real = [memory._kept(base.unet, batch, checkpointing=checkpointing, half=False) for batch in (1, 2)]
    assert paper.kept == pytest.approx(real[1][0] - real[0][0], rel=0.02)
    assert paper.recomputed == pytest.approx(real[1][1] - real[0][1], rel=0.02)
    assert (paper.recomputed > 0) == checkpointing


def test_parts_add_up(base: Base) -> None:
    plain, less = (training_memory(dict(base.unet.config), 48, SIZES, checkpointing=one) for one in (False, True))
    assert less.kept + less.recomputed < 0.6 * plain.kept
    parts, eight = plain.parts(3), plain.parts(3, "adamw_8bit")
    assert parts["activations"] == 3 * plain.kept
    assert 3.9 < parts["optimiser"] / eight["optimiser"] < 4.0
    assert parts["adapter, its gradients and averages"] == 12 * plain.weights
    assert plain.copies > 0
