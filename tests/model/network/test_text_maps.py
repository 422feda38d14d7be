"""Where attention looks for words: chosen layers, exact probabilities."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from model.network.text_maps import TextMaps, layers_of


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    """Three levels with attention and one without, as in Stable Diffusion 1.5."""
    down = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    sizes = {"block_out_channels": (8, 8, 8, 8), "cross_attention_dim": 16, "norm_num_groups": 4}
    return UNet2DConditionModel(
        sample_size=16, layers_per_block=1, down_block_types=down, up_block_types=up, attention_head_dim=2, **sizes
    )


@pytest.mark.parametrize(("form", "kind"), [("ours", "attn2"), ("published", "attn1")])
def test_layers_below_the_highest_resolution_are_chosen(unet: UNet2DConditionModel, form: str, kind: str) -> None:
    processors = unet.attn_processors
    chosen = [name for name in processors if id(processors[name]) in layers_of(processors, form)]
    assert all(kind in name for name in chosen)
    blocks = {".".join(name.split(".")[:2]).removesuffix(".attentions") for name in chosen}
    assert blocks == {"down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.1", "up_blocks.2"}


def test_with_one_resolution_all_are_chosen() -> None:
    processors = {f"down_blocks.0.attentions.0.attn{number}.processor": object() for number in (1, 2)}
    assert layers_of(processors, "ours") == {id(processors["down_blocks.0.attentions.0.attn2.processor"])}
    with pytest.raises(ValueError, match="a UNet without layers attn2: facial parts have no attention"):
        layers_of({}, "ours")


def test_a_map_is_the_attention_to_a_token() -> None:
    query, key = torch.randn(2, 3, 16, 8), torch.randn(2, 3, 77, 8)
    layer, places = object(), torch.tensor([[5, 70], [-1, 0]])
    maps = TextMaps(places, frozenset({id(layer)}))
    maps.collect(object(), query, key)
    maps.collect(layer, query, key)
    (found,) = maps.found
    # With values that are one token each, attention returns its probabilities.
    whole = F.scaled_dot_product_attention(query, key, torch.eye(77).expand(2, 3, -1, -1))
    torch.testing.assert_close(found[0], whole[0][..., [5, 70]])
    torch.testing.assert_close(found[1], whole[1][..., [0, 0]])


def test_a_token_without_a_key_is_refused() -> None:
    layer = object()
    maps = TextMaps(torch.tensor([[3, 16]]), frozenset({id(layer)}))
    with pytest.raises(ValueError, match=r"a word at token 16 and a self-attention of 16 positions"):
        maps.collect(layer, torch.randn(1, 1, 16, 4), torch.randn(1, 1, 16, 4))
