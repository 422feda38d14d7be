"""Both trainings on a base of the class of Stable Diffusion XL: pooled text, sizes, and what the pipeline is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.foundation.random_models import RandomModels
from model.network.adapter import Adapter
from model.network.base import Base, load_base
from model.network.identity_state import IdentityState
from model.network.text_encoding import TextStates
from model.training.anchoring import AnchoringModel, anchoring_data, make_batch
from model.training.encode import RecordEncoder
from model.training.photos import Photos
from model.training.seeded_draws import generator
from pipelines.core.sections.training import TrainAnchoring
from tests.random_bases import WIDTH, XL_WIDTHS, save_xl


@pytest.fixture(scope="module")
def folder(random_models: RandomModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save_xl(tmp_path_factory.mktemp("xl") / "sd", random_models.pipeline)


@pytest.fixture
def base(folder: Path, random_models: RandomModels) -> Base:
    return load_base(folder, random_models.image_encoder)


def test_the_base_is_called_as_its_pipeline_calls_it(
    base: Base, make_adapter: Callable[..., Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same text states, pooled text and sizes, with a prompt and without; so the same prediction."""
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(base.pipeline_folder, unet=base.unet, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    seen: list[tuple[Any, Any, dict[str, Any], Any]] = []
    forward = base.unet.forward

    def note(noised: Any, step: Any, **rest: Any) -> Any:
        found = forward(noised, step, **rest)
        seen.append((noised, step, rest, found[0]))
        return found

    monkeypatch.setattr(base.unet, "forward", note)
    pipe("a photo", num_inference_steps=1, guidance_scale=5.0, output_type="latent")
    noised, step, given, predicted = seen.pop()
    text = base.text_states(["", "a photo"])
    torch.testing.assert_close(text.states, given["encoder_hidden_states"])
    torch.testing.assert_close(text.pooled, given["added_cond_kwargs"]["text_embeds"])
    assert not text.states[0].any()
    found = base.predict(noised, step.expand(2), text)
    torch.testing.assert_close(seen[0][2]["added_cond_kwargs"]["time_ids"], given["added_cond_kwargs"]["time_ids"])
    torch.testing.assert_close(found, predicted)


def test_sizes_and_pooled_text_change_the_prediction(base: Base) -> None:
    latents, steps = torch.randn(2, 4, 16, 16), torch.tensor([10, 500])
    text = base.text_states(["a photo", "a drawing"])
    plain = base.predict(latents, steps, text)
    other = base.predict(latents, steps, TextStates(text.states, text.pooled.flip(0)))
    assert (plain - other).abs().max() > 1e-5


def test_cached_texts_have_the_pooled_text_and_zeros_for_none(
    base: Base, tmp_path: Path, make_photos: Callable[..., Photos]
) -> None:
    with RecordEncoder(tmp_path, 2, None) as encoder:
        first = encoder.texts(base, ["a photo", ""])(np.array([0, 1]))
    again = RecordEncoder(tmp_path, 2, None).texts(base, ["a photo", ""])
    assert not again.records.missing
    expected = base.text_states(["a photo", ""])
    for found in (first, again(np.array([0, 1]))):
        assert found.states.shape == (2, 77, WIDTH)
        assert found.pooled.shape == (2, XL_WIDTHS[1])
        torch.testing.assert_close(found.states, expected.states, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(found.pooled, expected.pooled, atol=2e-3, rtol=2e-3)


def test_anchoring_reaches_every_part_of_the_adapter(
    base: Base, tmp_path: Path, make_photos: Callable[..., Photos], make_adapter: Callable[..., Adapter]
) -> None:
    data = anchoring_data(base, make_photos(1, 2, 3, 4), RecordEncoder(tmp_path, 4, None), 64)
    batch = make_batch(data, np.arange(4), generator(0, "test", 1), np.array([50, 300, 600, 900]), (0.0, 0.0, 0.0))
    adapter = make_adapter(base, imr=False).train()
    adapter.attach(base.unet)
    model = AnchoringModel(adapter, base, TrainAnchoring(steps=1, batch_size=4))
    model(batch)["loss"].backward()
    without = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    assert without == {"null_tokens"}


def test_inside_a_box_nobody_else_is_attended_to(base: Base, make_adapter: Callable[..., Adapter]) -> None:
    """With the identity switched off, the base is unchanged to the last bit."""
    latents, steps, text = torch.randn(1, 4, 16, 16), torch.tensor([500]), base.text_states(["a photo"])
    plain = base.predict(latents, steps, text)
    adapter = make_adapter(base, imr=False)
    adapter.attach(base.unet)
    tokens = torch.randn(1, 8, WIDTH)
    off = IdentityState(tokens, scale=0.0, lora_scale=0.0)
    assert torch.equal(base.predict(latents, steps, text, off), plain)
    weights: list[torch.Tensor] = []
    for processor in adapter.processors:
        if hasattr(processor, "_branch"):
            inner = processor._branch

            def note(*given: Any, inner: Any = inner) -> Any:
                found = inner(*given)
                weights.append(found[0].unflatten(-1, (-1, 2, 4)))
                return found

            processor._branch = note
    boxes = [[0.0, 0.0, 1.0, 0.5], [0.0, 0.5, 1.0, 1.0]]
    base.predict(latents, steps, text, IdentityState(tokens, boxes=boxes, height=16, width=16, gate=False))
    assert weights
    for found in weights:
        side = int(found.shape[1] ** 0.5)
        first = (torch.arange(side * side) % side) < side // 2
        own, other = found[:, first, :, 0], found[:, first, :, 1]
        assert not other.any()
        torch.testing.assert_close(own.sum(-1), torch.ones_like(own.sum(-1)))
        assert not found[:, ~first, :, 0].any()
