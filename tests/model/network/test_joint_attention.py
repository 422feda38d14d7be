"""SAA in a real Flux transformer: identity, gate, regions, text, LoRA and errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from model.foundation.random_models import RandomModels, save_random_models
from model.network.adapter import Adapter
from model.network.base import BaseReference
from model.network.identity_state import IdentityState
from model.network.joint_attention import JointSemanticActivatedAttention
from model.network.methods import IP_ADAPTER_FACEID
from tests.random_networks import SIZES

Predict = Callable[..., Tensor]
TEXT, CELLS = 5, 24  # a latent of 8 × 12


@pytest.fixture
def transformer(random_flux: RandomModels) -> FluxTransformer2DModel:
    found = FluxTransformer2DModel.from_pretrained(random_flux.pipeline / "transformer", local_files_only=True)
    return found.eval().requires_grad_(False)


@pytest.fixture
def adapter(transformer: FluxTransformer2DModel) -> Adapter:
    torch.manual_seed(0)
    found = Adapter(transformer, 48, SIZES, 0.3)
    for name, parameter in found.processors.named_parameters():
        if ".up." in name or "to_v_ip" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return found.eval()


@pytest.fixture
def predict(transformer: FluxTransformer2DModel) -> Predict:
    rng = torch.Generator().manual_seed(1)
    packed, text = torch.randn(2, CELLS, 16, generator=rng), torch.randn(2, TEXT, 40, generator=rng)
    pooled = torch.randn(2, 64, generator=rng)
    places = torch.tensor([[0, row, column] for row in range(4) for column in range(6)])

    def run(identity: IdentityState | None = None, *, rows: slice = slice(None)) -> Tensor:
        return transformer(
            packed[rows],
            text[rows],
            pooled[rows],
            torch.full((len(packed[rows]),), 0.5),
            places,
            torch.zeros(TEXT, 3),
            joint_attention_kwargs=None if identity is None else {"identity": identity},
            return_dict=False,
        )[0]

    return run


def tokens(people: int = 1, pictures: int = 2, seed: int = 2) -> Tensor:
    return torch.randn(pictures, 4 * people, 64, generator=torch.Generator().manual_seed(seed))


def state(given: Tensor | None = None, **more: object) -> IdentityState:
    return IdentityState(tokens() if given is None else given, **{"height": 8, "width": 12, **more})  # type: ignore[arg-type]


def layer_of(transformer: FluxTransformer2DModel, single: bool) -> torch.nn.Module:
    blocks = transformer.single_transformer_blocks if single else transformer.transformer_blocks
    return blocks[0].attn


@torch.no_grad()
def test_an_attached_adapter_without_identity_is_the_base_bit_for_bit(
    transformer: FluxTransformer2DModel, adapter: Adapter, predict: Predict
) -> None:
    plain = predict()
    adapter.attach(transformer)
    assert torch.equal(predict(), plain)
    assert torch.equal(predict(state(scale=0.0, lora_scale=0.0)), plain)
    assert torch.equal(predict(state(scale=0.0, lora_scale=0.0, cache={})), plain)
    torch.testing.assert_close(predict(state(scale=[0.0], lora_scale=0.0)), plain)
    assert float((predict(state(lora_scale=0.0)) - plain).abs().max()) > 1e-3
    assert float((predict(state(scale=0.0)) - plain).abs().max()) > 1e-3
    adapter.detach(transformer)
    assert torch.equal(predict(), plain)
    assert not any("processor" in name for name in transformer.state_dict())


@torch.no_grad()
def test_a_new_adapter_changes_nothing_yet(transformer: FluxTransformer2DModel, predict: Predict) -> None:
    plain = predict()
    Adapter(transformer, 48, SIZES, 0.3).attach(transformer)
    torch.testing.assert_close(predict(state()), plain)


def expected(
    layer: torch.nn.Module, own: JointSemanticActivatedAttention, hidden: Tensor, text: Tensor | None, given: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the states (B, T, C) and (B, N, C) of text and picture before the output layer, head by head."""

    def heads(states: Tensor) -> list[Tensor]:
        return list(states.unflatten(-1, (layer.heads, -1)).unbind(2))

    def with_lora(name: str, states: Tensor) -> Tensor:
        return getattr(layer, name)(states) + getattr(own, f"{name}_lora")(states)

    query, key, value = (with_lora(name, hidden) for name in ("to_q", "to_k", "to_v"))
    length, cells = (0 if text is None else text.shape[1]), CELLS
    joined, logits, activation = [], [], torch.zeros(len(hidden), cells)
    for number in range(layer.heads):
        q, k, v = layer.norm_q(heads(query)[number]), layer.norm_k(heads(key)[number]), heads(value)[number]
        asking = q[:, -cells:]
        if text is not None:
            q = torch.cat([layer.norm_added_q(heads(layer.add_q_proj(text))[number]), q], dim=1)
            k = torch.cat([layer.norm_added_k(heads(layer.add_k_proj(text))[number]), k], dim=1)
            v = torch.cat([heads(layer.add_v_proj(text))[number], v], dim=1)
        joined.append((q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1) @ v)
        logits.append(asking @ heads(own.to_k_ip(given))[number].transpose(1, 2) * q.shape[-1] ** -0.5)
        activation += logits[-1].sum(-1)
    low, high = activation.amin(1, keepdim=True), activation.amax(1, keepdim=True)
    gate = (activation - low) / (high - low + 1e-6)
    gate = (gate * (gate >= 0.3))[..., None]
    for number in range(layer.heads):
        joined[number][:, -cells:] += gate * (logits[number].softmax(-1) @ heads(own.to_v_ip(given))[number])
    whole = torch.cat(joined, dim=-1)
    return whole.split([whole.shape[1] - cells, cells], dim=1) if length == 0 else whole.split([length, cells], dim=1)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("single", [False, True])
def test_the_layer_computes_the_formula_of_the_paper(
    transformer: FluxTransformer2DModel, adapter: Adapter, single: bool, grad: bool
) -> None:
    adapter.attach(transformer)
    layer, rng = layer_of(transformer, single), torch.Generator().manual_seed(3)
    own = layer.processor
    text, hidden = torch.randn(2, TEXT, 32, generator=rng), torch.randn(2, CELLS, 32, generator=rng)
    with torch.set_grad_enabled(grad):
        if single:
            whole = torch.cat([text, hidden], dim=1)
            found = layer(whole, identity=state())
            states = torch.cat(expected(layer, own, whole, None, tokens()), dim=1)
            torch.testing.assert_close(found, states + own.to_out_lora(states))
            return
        picture, words = layer(hidden, text, identity=state())
        of_text, of_picture = expected(layer, own, hidden, text, tokens())
        torch.testing.assert_close(words, layer.to_add_out(of_text))
        torch.testing.assert_close(picture, layer.to_out[0](of_picture) + own.to_out_lora(of_picture))


@torch.no_grad()
@pytest.mark.parametrize("single", [False, True])
def test_text_does_not_see_the_identity(transformer: FluxTransformer2DModel, adapter: Adapter, single: bool) -> None:
    adapter.attach(transformer)
    layer, rng = layer_of(transformer, single), torch.Generator().manual_seed(3)
    text, hidden = torch.randn(2, TEXT, 32, generator=rng), torch.randn(2, CELLS, 32, generator=rng)
    given = (torch.cat([text, hidden], dim=1),) if single else (hidden, text)
    plain, drawn = layer(*given), layer(*given, identity=state(lora_scale=0.0))
    words = (lambda found: found[:, :TEXT]) if single else (lambda found: found[1])
    picture = (lambda found: found[:, TEXT:]) if single else (lambda found: found[0])
    assert torch.equal(words(plain), words(drawn))
    assert float((picture(plain) - picture(drawn)).abs().max()) > 1e-3


@torch.no_grad()
def test_inside_a_box_the_attention_to_other_people_is_exactly_zero(
    transformer: FluxTransformer2DModel, adapter: Adapter
) -> None:
    adapter.attach(transformer)
    boxes = [[0, 0, 1, 0.5], [0.25, 0.5, 1, 1]]
    for layer in (layer_of(transformer, True), layer_of(transformer, False)):
        query = torch.randn(2, CELLS, 32, generator=torch.Generator().manual_seed(4))
        weights, _ = layer.processor._branch(query, layer.heads, state(tokens(2), boxes=boxes, gate=False))
        by_person = weights.unflatten(-1, (layer.heads, 2, 4)).sum((2, 4)).unflatten(1, (4, 6))
        # The patches are a grid of 4 × 6.
        assert bool((by_person[:, :, :3, 1] == 0).all())
        assert bool((by_person[:, 1:, 3:, 0] == 0).all())
        assert bool((by_person[:, 0, 3:] > 0).all())


@torch.no_grad()
@pytest.mark.parametrize("people", [1, 2])
def test_cache_and_folding_change_nothing(
    transformer: FluxTransformer2DModel, adapter: Adapter, predict: Predict, people: int
) -> None:
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    base = predict()
    adapter.attach(transformer)
    plain, cached = predict(state(tokens(people))), state(tokens(people), cache={})
    for _ in range(2):
        torch.testing.assert_close(predict(cached), plain)
    adapter.fold(transformer)
    torch.testing.assert_close(predict(state(tokens(people))), plain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(predict(), base, atol=1e-4, rtol=1e-4)
    adapter.unfold()
    adapter.detach(transformer)
    assert all(torch.equal(value, before[name]) for name, value in transformer.state_dict().items())


@torch.no_grad()
def test_every_layer_reports_its_gate_on_the_grid_of_patches(
    transformer: FluxTransformer2DModel, adapter: Adapter, predict: Predict
) -> None:
    adapter.attach(transformer)
    seen = state(maps=[])
    predict(seen)
    assert seen.maps is not None
    assert [tuple(gate.shape) for gate in seen.maps] == [(2, 4, 6)] * 3


def test_all_weights_get_a_gradient_with_and_without_checkpointing(
    transformer: FluxTransformer2DModel, adapter: Adapter, predict: Predict
) -> None:
    adapter.train().attach(transformer)
    found = []
    for change in (transformer.disable_gradient_checkpointing, transformer.enable_gradient_checkpointing):
        change()
        transformer.train()
        adapter.zero_grad()
        predict(state()).square().mean().backward()
        found.append({name: one.grad.clone() for name, one in adapter.processors.named_parameters()})
    torch.testing.assert_close(found[0], found[1])
    assert all(bool(grad.any()) for grad in found[0].values())


@torch.no_grad()
def test_a_state_of_another_size_is_refused(
    transformer: FluxTransformer2DModel, adapter: Adapter, predict: Predict
) -> None:
    adapter.attach(transformer)
    with pytest.raises(ValueError, match="24 positions, and an identity state of a latent of 8x8: it has 16 patches"):
        predict(state(width=8))
    with pytest.raises(ValueError, match="needs height and width"):
        predict(IdentityState(tokens()))


def test_an_adapter_keeps_its_family(
    transformer: FluxTransformer2DModel, adapter: Adapter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from diffusers import UNet2DConditionModel

    folder = tmp_path_factory.mktemp("adapter")
    adapter.save(folder, BaseReference("flux", "clip", "0" * 64))
    loaded = Adapter.load(folder, transformer)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in adapter.state_dict().items())
    unet = UNet2DConditionModel.from_pretrained(save_random_models(folder / "sd").pipeline / "unet")
    with pytest.raises(ValueError, match="made for a FluxTransformer2DModel, the base has a UNet2DConditionModel"):
        Adapter.load(folder, unet)
    with pytest.raises(ValueError, match="an adapter for a FluxTransformer2DModel, and a UNet2DConditionModel"):
        adapter.attach(unet)
    with pytest.raises(ValueError, match="method ip_adapter_faceid has no layers for a FluxTransformer2DModel"):
        Adapter(transformer, 48, SIZES, 0.3, IP_ADAPTER_FACEID)
