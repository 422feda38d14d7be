"""All contestants do the same work with the same weights, independently of each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.contestants import NAMES, Contestant, Workload, build_adapter, contestant, twin
from benchmarks.full_size_models import random_unet


@pytest.fixture
def unet(small_unet_config: dict[str, Any]) -> Any:
    return random_unet(small_unet_config)


@pytest.fixture
def work() -> Workload:
    return Workload.make(128, 2, 64, torch.device("cpu"), torch.float32)


@pytest.fixture
def contestants(unet: Any, work: Workload) -> dict[str, Contestant]:
    processors = build_adapter(unet, rank=4)
    return {name: contestant(name, twin(unet, own_attention=name == "ours"), processors, work) for name in NAMES}


@torch.inference_mode()
def test_ours_and_the_literal_version_predict_the_same(contestants: dict[str, Contestant]) -> None:
    literal, plain = contestants["literal"].step(), contestants["plain"].step()
    assert float((literal - plain).abs().max()) > 1e-3
    for _ in range(2):
        torch.testing.assert_close(contestants["ours"].step(), literal, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_contestants_do_not_change_each_other(unet: Any, work: Workload, contestants: dict[str, Contestant]) -> None:
    expected = unet(work.latents, work.timestep, work.text, return_dict=False)[0]
    first = {name: item.step() for name, item in contestants.items()}
    assert torch.equal(first["plain"], expected)
    for name, item in contestants.items():
        torch.testing.assert_close(item.step(), first[name], atol=0, rtol=0)
    assert float((first["ip_adapter"] - expected).abs().max()) > 1e-4


def test_twins_share_all_weights_but_those_that_lora_is_folded_into(unet: Any) -> None:
    pointers = {name: value.data_ptr() for name, value in unet.named_parameters()}
    shared = {name for name, value in twin(unet).named_parameters() if value.data_ptr() == pointers[name]}
    assert shared == set(pointers)
    own = twin(unet, own_attention=True)
    copied = {name for name, value in own.named_parameters() if value.data_ptr() != pointers[name]}
    assert copied == {name for name in pointers if ".attn1." in name or ".attn2." in name}


def test_added_weights_are_counted(contestants: dict[str, Contestant]) -> None:
    assert contestants["plain"].added_bytes == 0
    assert contestants["ours"].added_bytes == contestants["literal"].added_bytes > 0


def test_an_unknown_contestant_is_refused(unet: Any, work: Workload) -> None:
    with pytest.raises(ValueError, match="contestant 'theirs': expected one of plain"):
        contestant("theirs", unet, build_adapter(unet, rank=4), work)
