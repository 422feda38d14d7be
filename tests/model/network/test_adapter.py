"""Save, load and attach adapters."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.face.conventions import OURS, PUBLISHED
from model.foundation.random_models import save_random_models
from model.network.adapter import Adapter
from model.network.base import Base, BaseReference, load_base

REFERENCE = BaseReference("base/sd", "base/clip", "0" * 64)
Make = Callable[..., Adapter]


@pytest.mark.parametrize("imr", [False, True])
def test_a_saved_adapter_is_loaded_unchanged(base: Base, make_adapter: Make, tmp_path: Path, imr: bool) -> None:
    adapter = make_adapter(base, imr=imr)
    adapter.conventions = (OURS.with_values({"hair": True}), PUBLISHED)[imr]
    adapter.save(tmp_path / "a", REFERENCE)
    again = Adapter.load(tmp_path / "a", base.unet)
    assert again.conventions == adapter.conventions
    assert json.loads((tmp_path / "a" / "config.json").read_text())["format"] == (1, 2)[imr], "readers of 1 know ours"
    assert again.base_reference == REFERENCE
    assert again.sizes == adapter.sizes
    assert (again.reconfigurator is None) is not imr
    assert (again.templates is None) is not imr
    state = again.state_dict()
    assert state.keys() == adapter.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in adapter.state_dict().items())
    again.save(tmp_path / "b", REFERENCE)
    for name in ("adapter.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_weights_that_do_not_fit_are_listed(base: Base, make_adapter: Make, tmp_path: Path) -> None:
    make_adapter(base).save(tmp_path, REFERENCE)
    file = tmp_path / "adapter.safetensors"
    tensors = load_file(file)
    tensors.pop("null_tokens")
    tensors["nonsense"] = torch.zeros(1)
    tensors["face_encoder.norm.weight"] = torch.zeros(3)
    save_file(tensors, file)
    with pytest.raises(ValueError, match="does not fit") as error:
        Adapter.load(tmp_path, base.unet)
    message = str(error.value)
    assert "missing null_tokens" in message
    assert "unknown nonsense" in message
    assert "face_encoder.norm.weight (3,) instead of (64,)" in message


def test_missing_files_are_named(base: Base, make_adapter: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        Adapter.load(tmp_path / "nowhere", base.unet)
    make_adapter(base).save(tmp_path, REFERENCE)
    (tmp_path / "adapter.safetensors").unlink()
    with pytest.raises(ValueError, match=r"adapter\.safetensors: no such file"):
        Adapter.load(tmp_path, base.unet)


@pytest.mark.parametrize("name", ["adapter.safetensors", "config.json"])
@pytest.mark.parametrize("content", [b"[]", b"{\xff", b""])
def test_damaged_files_are_named(base: Base, make_adapter: Make, tmp_path: Path, name: str, content: bytes) -> None:
    make_adapter(base).save(tmp_path, REFERENCE)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: damaged.*; copy the adapter again$"):
        Adapter.load(tmp_path, base.unet)


def test_another_format_or_base_is_refused(base: Base, make_adapter: Make, tmp_path: Path) -> None:
    make_adapter(base).save(tmp_path / "a", REFERENCE)
    wide = save_random_models(tmp_path / "wide", cross_attention_dim=128)
    with pytest.raises(ValueError, match=r"made for .*width 64; the base .*wide/sd has 128: give a base"):
        Adapter.load(tmp_path / "a", load_base(wide.pipeline, wide.image_encoder).unet)
    config = json.loads((tmp_path / "a" / "config.json").read_text("utf-8"))
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, "format": 99}), encoding="utf-8")
    with pytest.raises(ValueError, match="format 99"):
        Adapter.load(tmp_path / "a", base.unet)


def test_reconfiguring_needs_an_imr(base: Base, make_adapter: Make) -> None:
    adapter = make_adapter(base, imr=False)
    pictures, text = torch.zeros(1, 1, 96, 96), torch.zeros(1, 64)
    with pytest.raises(ValueError, match="train_imr"):
        adapter.reconfigure(torch.zeros(1, 4, 64), pictures, text, pictures, text)


def test_a_residual_imr_starts_as_identity(base: Base, make_adapter: Make) -> None:
    adapter = make_adapter(base, imr=False)
    adapter.add_reconfigurator(residual=True)
    tokens = torch.randn(2, 4, 64)
    source, target = torch.rand(2, 1, 96, 96), torch.rand(6, 1, 96, 96)
    out = adapter.reconfigure(tokens, source, torch.randn(2, 64), target, torch.randn(6, 64))
    assert torch.equal(out, tokens.repeat_interleave(3, dim=0))
    adapter.add_reconfigurator(residual=False)
    out = adapter.reconfigure(tokens, source, torch.randn(2, 64), target, torch.randn(6, 64))
    assert out.shape == (6, 4, 64)
    assert not torch.allclose(out[0], tokens[0], atol=1e-2)


def test_a_batch_of_targets_equals_single_targets(base: Base, make_adapter: Make) -> None:
    adapter = make_adapter(base)
    torch.manual_seed(0)
    tokens, source_text, target_text = torch.randn(2, 4, 64), torch.randn(2, 64), torch.randn(4, 64)
    source, target = torch.rand(2, 1, 96, 96), torch.rand(4, 1, 96, 96)
    together = adapter.reconfigure(tokens, source, source_text, target, target_text)
    for row in range(4):
        of, one = [row // 2], [row]
        alone = adapter.reconfigure(tokens[of], source[of], source_text[of], target[one], target_text[one])
        assert torch.allclose(alone, together[one], atol=1e-5)


def test_imr_learns_from_one_source_and_one_target(base: Base, make_adapter: Make) -> None:
    adapter = make_adapter(base)
    adapter.train()
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=1e-3)
    torch.manual_seed(0)
    tokens, goal = torch.randn(1, 4, 64), torch.randn(1, 4, 64)
    pictures, texts = torch.rand(2, 1, 96, 96), torch.randn(2, 64)
    losses = []
    for _ in range(10):
        out = adapter.reconfigure(tokens, pictures[:1], texts[:1], pictures[1:], texts[1:])
        loss = (out - goal).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_a_copy_is_independent(base: Base, make_adapter: Make) -> None:
    adapter = make_adapter(base)
    adapter.attach(base.unet)
    twin = copy.deepcopy(adapter)
    with torch.no_grad():
        twin.null_tokens.add_(1)
        twin.processors[0].to_q_lora.down.weight.add_(1)
    assert not torch.equal(twin.null_tokens, adapter.null_tokens)
    assert not torch.equal(twin.processors[0].to_q_lora.down.weight, adapter.processors[0].to_q_lora.down.weight)
    twin.load_state_dict(adapter.state_dict())
    assert torch.equal(twin.null_tokens, adapter.null_tokens)


def test_attaching_twice_and_replacing(base: Base, make_adapter: Make) -> None:
    plain = base.unet.attn_processors
    one, two = make_adapter(base), make_adapter(base, seed=1)
    one.attach(base.unet)
    one.attach(base.unet)
    assert list(base.unet.attn_processors.values()) == list(one.processors)
    one.detach(base.unet)
    two.attach(base.unet)
    two.detach(base.unet)
    assert base.unet.attn_processors == plain


def test_weights_of_another_adapter_are_refused(base: Base, make_adapter: Make, tmp_path: Path) -> None:
    """As after one file of two was copied: both fit, together they are no adapter that was ever trained."""
    for name, seed in (("one", 0), ("two", 1)):
        make_adapter(base, seed=seed).save(tmp_path / name, REFERENCE)
    (tmp_path / "two" / "adapter.safetensors").replace(tmp_path / "one" / "adapter.safetensors")
    with pytest.raises(ValueError, match=r"config\.json: belongs to weights with sha256 .* beside it has \w{12}"):
        Adapter.load(tmp_path / "one", base.unet)
