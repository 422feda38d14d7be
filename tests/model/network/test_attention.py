"""SAA in a real UNet: identity, cache, regions, gate, precision and errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.network.adapter import Adapter
from model.network.attention import IdentityState, SemanticActivatedAttention
from model.network.base import Base

Predict = Callable[..., Tensor]


@pytest.fixture
def adapter(base: Base, make_adapter: Callable[..., Adapter]) -> Adapter:
    return make_adapter(base)


@pytest.fixture
def attached(base: Base, adapter: Adapter) -> Adapter:
    adapter.attach(base.unet)
    return adapter


@pytest.fixture
def predict(base: Base) -> Predict:
    torch.manual_seed(1)
    text, _ = base.encode_text(["a photo of a person", "a drawing"])
    latents = torch.randn(2, 4, 16, 16)

    def run(state: IdentityState | None = None, *, rows: slice = slice(None)) -> Tensor:
        extra = {} if state is None else {"cross_attention_kwargs": {"identity": state}}
        return base.unet(latents[rows], torch.tensor(500), text[rows], **extra).sample

    return run


def tokens(people: int = 1, pictures: int = 2, seed: int = 2) -> Tensor:
    return torch.randn(pictures, 4 * people, 64, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_attached_without_identity_is_the_base(base: Base, adapter: Adapter, predict: Predict) -> None:
    plain = predict()
    adapter.attach(base.unet)
    assert torch.equal(predict(), plain)
    adapter.detach(base.unet)
    assert torch.equal(predict(), plain)
    assert not any("processor" in name for name in base.unet.state_dict())


@torch.no_grad()
def test_scales_of_zero_give_the_base(base: Base, adapter: Adapter, predict: Predict) -> None:
    plain = predict()
    adapter.attach(base.unet)
    for cache in (None, {}):
        off = predict(IdentityState(tokens(), scale=0.0, lora_scale=0.0, cache=cache))
        assert float((off - plain).abs().max()) <= 1e-5
    per_person = predict(IdentityState(tokens(), scale=[0.0], lora_scale=0.0))
    assert float((per_person - plain).abs().max()) <= 1e-5
    assert float((predict(IdentityState(tokens(), lora_scale=0.0)) - plain).abs().max()) > 1e-3
    assert float((predict(IdentityState(tokens(), scale=0.0)) - plain).abs().max()) > 1e-3


@torch.no_grad()
def test_new_adapter_only_adds_identity(base: Base, predict: Predict) -> None:
    adapter = Adapter.create(base.unet, base.image_encoder, {"lora_rank": 4}, 0.3)
    plain = predict()
    first = next(p for p in adapter.processors if isinstance(p, SemanticActivatedAttention))
    layer = base.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    assert torch.equal(first.to_k_ip.weight, layer.to_k.weight)
    assert torch.equal(first.to_v_ip.weight, layer.to_v.weight)
    adapter.attach(base.unet)
    assert float((predict(IdentityState(tokens(), scale=0.0)) - plain).abs().max()) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("people", [1, 2, 3])
def test_cache_changes_nothing(attached: Adapter, predict: Predict, people: int) -> None:
    plain = predict(IdentityState(tokens(people)))
    state = IdentityState(tokens(people), cache={})
    for _ in range(2):
        assert torch.allclose(predict(state), plain, atol=1e-5)
    assert state.cache


@torch.no_grad()
def test_the_text_cache_is_cleared_if_the_lora_scale_changes(attached: Adapter, predict: Predict) -> None:
    given = tokens()
    state = IdentityState(given, layout_steps=1, cache={})
    first = predict(state)
    assert state.current_lora_scale == 0
    torch.testing.assert_close(first, predict(IdentityState(given, lora_scale=0.0)))
    state.step = 1
    assert state.current_lora_scale == 1
    torch.testing.assert_close(predict(state), predict(IdentityState(given)))


@torch.no_grad()
def test_a_batch_with_a_box_per_picture(attached: Adapter, predict: Predict) -> None:
    boxes = [[[0, 0, 1, 0.5], [0, 0.5, 1, 1]], [[0, 0, 0.4, 1], [0.3, 0.2, 1, 0.9]]]
    both = tokens(2)
    together = predict(IdentityState(both, boxes=boxes, boost=2.0, boost_steps=3, scale=[1.0, 0.5]))
    for row in range(2):
        state = IdentityState(both[row : row + 1], boxes=boxes[row], boost=2.0, boost_steps=3, scale=[1.0, 0.5])
        assert torch.allclose(predict(state, rows=slice(row, row + 1)), together[row : row + 1], atol=1e-5)
    assert not torch.allclose(predict(IdentityState(both)), together, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    ("given", "boxes"),
    [
        (torch.zeros(2, 4, 64), None),
        (torch.zeros(2, 8, 64), [[0, 0, 1, 1], [0, 0, 1, 1]]),
        (tokens(2), [[0.1, 0.1, 0.8, 0.7], [0.4, 0.3, 1.0, 0.9]]),
        (tokens(2), [[0.5, 0.5, 0.501, 0.501], [0.999, 0.999, 1.0, 1.0]]),
        (tokens(3), [[0, 0, 0.01, 1], [0, 0, 1, 0.01], [1, 1, 1, 1]]),
        (tokens(4), None),
        (torch.zeros(2, 16, 64), [[0, 0, 0.6, 0.6], [0, 0.4, 0.6, 1], [0.4, 0, 1, 0.6], [0.99, 0.99, 1, 1]]),
        (tokens(1) * 1e4, None),
    ],
)
def test_extreme_input_stays_finite(
    attached: Adapter, predict: Predict, given: Tensor, boxes: list[list[float]] | None
) -> None:
    state = IdentityState(given, boxes=boxes, boost=2.0, boost_steps=1, maps=[])
    assert predict(state).isfinite().all()
    assert all(gate.isfinite().all() for gate in state.maps)


def test_boxes_cover_the_cells_they_name() -> None:
    state = IdentityState(tokens(2), boxes=[[0.25, 0, 1, 0.5], [0.5, 0.5, 0.51, 0.51]])
    covered = state.covered(2, 64, torch.device("cpu")).view(2, 8, 8)
    expected = torch.zeros(2, 8, 8, dtype=torch.bool)
    expected[0, 2:, :4] = True
    expected[1, 4, 4] = True
    assert torch.equal(covered, expected)


def test_equal_slices_where_no_boxes_are_given() -> None:
    covered = IdentityState(tokens(2), height=4, width=6).covered(2, 24, torch.device("cpu")).view(2, 4, 6)
    assert covered[0, :, :3].all()
    assert not covered[0, :, 3:].any()
    assert torch.equal(covered[1], ~covered[0])


def test_layer_size_follows_the_latent() -> None:
    state = IdentityState(tokens(), height=15, width=24)
    assert [state.grid(cells) for cells in (360, 96, 24)] == [(15, 24), (8, 12), (4, 6)]
    with pytest.raises(ValueError, match="95 queries"):
        state.grid(95)
    with pytest.raises(ValueError, match="height and width"):
        IdentityState(tokens()).grid(24)


@torch.no_grad()
def test_tokens_have_no_effect_outside_their_box(base: Base, adapter: Adapter) -> None:
    """With the gate off, the tokens of the right half do not change the attention of the left half."""
    layer = base.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    adapter.attach(base.unet)
    torch.manual_seed(3)
    hidden = torch.randn(1, 64, layer.to_q.in_features)
    text = torch.randn(1, 77, 64)
    one, other = tokens(2, 1), tokens(2, 1)
    other[:, 4:] += 1
    found = []
    for given in (one, other):
        state = IdentityState(given, boxes=[[0, 0, 1, 0.5], [0, 0.5, 1, 1]], gate=False)
        found.append(layer(hidden, encoder_hidden_states=text, identity=state).view(8, 8, -1))
    assert torch.allclose(found[0][:, :4], found[1][:, :4], atol=1e-6)
    assert not torch.allclose(found[0][:, 4:], found[1][:, 4:], atol=1e-3)


@torch.no_grad()
def test_references_of_one_person_share_its_region_and_weight(attached: Adapter, predict: Predict) -> None:
    """A reference three times is the reference once, in softmax and gate, beside another person with one."""
    given, boxes = tokens(2), [[0, 0, 0.7, 0.5], [0, 0.5, 1, 1]]
    repeated = torch.cat([given[:, :4].repeat(1, 3, 1), given[:, 4:]], dim=1)
    for more in ({}, {"boxes": boxes, "scale": [1.0, 0.5], "boost": 2.0, "boost_steps": 1}):
        once = IdentityState(given, maps=[], **more)
        thrice = IdentityState(repeated, maps=[], references=(3, 1), **more)
        torch.testing.assert_close(predict(thrice), predict(once), atol=1e-4, rtol=1e-4)
        for gates in zip(once.maps, thrice.maps, strict=True):
            torch.testing.assert_close(*gates, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="8 identity tokens: expected 4 for each of 4 references"):
        predict(IdentityState(given, references=(3, 1)))


@torch.no_grad()
def test_gate_maps_on_request(attached: Adapter, predict: Predict) -> None:
    state = IdentityState(tokens(), maps=[])
    predict(state)
    assert len(state.maps) == sum(isinstance(p, SemanticActivatedAttention) for p in attached.processors)
    for gate in state.maps:
        assert gate.shape[0] == 2
        assert gate.min() == 0
        assert 0.99 < gate.max() <= 1
        assert not ((gate > 0) & (gate < 0.3)).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_trains(attached: Adapter, predict: Predict, dtype: torch.dtype) -> None:
    embeddings, states = torch.nn.functional.normalize(torch.randn(2, 512)), torch.randn(2, 17, 48)
    full = predict(IdentityState(attached.identity_tokens(embeddings, states)))
    with torch.autocast("cpu", dtype=dtype):
        mixed = predict(IdentityState(attached.identity_tokens(embeddings, states)))
        mixed.float().square().mean().backward()
    assert float((mixed.float() - full).detach().abs().max()) < 0.1 * float(full.detach().abs().max())
    assert all(x.grad.isfinite().all() for x in attached.parameters() if x.grad is not None)


@torch.no_grad()
def test_wrong_numbers_are_named(attached: Adapter, predict: Predict) -> None:
    with pytest.raises(ValueError, match="3 pictures for 2 pictures"):
        predict(IdentityState(tokens(pictures=3)))
    with pytest.raises(ValueError, match="multiple of 4"):
        predict(IdentityState(torch.randn(2, 6, 64)))
    with pytest.raises(ValueError, match="1 boxes for 2 people"):
        predict(IdentityState(tokens(2), boxes=[[0, 0, 1, 1]]))
    with pytest.raises(ValueError, match="boxes of shape"):
        IdentityState(tokens(), boxes=[0, 0, 1, 1])
