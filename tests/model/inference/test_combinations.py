"""What users of diffusers combine with an adapter: other LoRAs, few steps, bases of few bits, other attention."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from model.face.face import Face
from model.foundation.random_models import RandomModels
from model.inference.pipeline import DynamicIDPipeline, pipeline_class
from model.network.adapter import Adapter
from model.network.base import Base, load_base
from tests.model.inference.pictures import HALVES, draw, quiet
from tests.random_networks import random_adapter


def two(pipe: Any, faces: list[Face], **arguments: Any) -> np.ndarray:
    sized = {"height": 64, "width": 64, "guidance_scale": 1.0} if hasattr(pipe, "transformer") else {}
    return draw(pipe, faces=faces, boxes=HALVES, **sized, **arguments).images


@pytest.mark.parametrize(
    "put",
    [
        lambda pipe: pipe.enable_attention_slicing("max"),
        lambda pipe: pipe.fuse_qkv_projections(vae=False),
        lambda pipe: pipe.unet.set_attn_processor(AttnProcessor2_0()),
    ],
    ids=["slicing", "fused", "processors"],
)
def test_what_puts_other_processors_in_place_is_refused(
    pipe: DynamicIDPipeline, faces: list[Face], tmp_path: Path, put: Callable[[Any], Any]
) -> None:
    expected, plain = two(pipe, faces), draw(pipe).images
    pipe.save_pretrained(tmp_path / "saved")
    put(pipe)
    with pytest.raises(ValueError, match=r"attentions have a \w+ in place of the adapter's .* would draw nobody"):
        two(pipe, faces)
    np.testing.assert_allclose(draw(pipe).images, plain, atol=1e-5)
    pipe.load_adapter(tmp_path / "saved" / "adapter")
    assert np.array_equal(two(pipe, faces), expected)


def test_an_autoencoder_in_slices_and_tiles_and_free_skips(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    expected = two(pipe, faces)
    pipe.vae.enable_slicing()
    np.testing.assert_allclose(two(pipe, faces), expected, atol=1e-5)
    pipe.vae.enable_tiling()
    assert np.isfinite(two(pipe, faces)).all()
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    assert np.abs(two(pipe, faces) - expected).max() > 1e-3
    pipe.disable_freeu()
    pipe.vae.disable_tiling()
    np.testing.assert_allclose(two(pipe, faces), expected, atol=1e-5)


def test_a_base_distilled_without_guidance_draws_in_four_steps(
    base: Base, make_adapter: Callable[..., Adapter], faces: list[Face]
) -> None:
    """A consistency model reads the guidance scale as an input: a call has no negative half, whatever the scale."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({**base.unet.config, "time_cond_proj_dim": 16}).eval()
    distilled = replace(base, denoiser=unet, scheduler=LCMScheduler.from_config(base.scheduler.config))
    pipe = quiet(DynamicIDPipeline.from_base(distilled, make_adapter(distilled)))
    sizes = []
    pipe.unet.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    pictures = [two(pipe, faces, num_inference_steps=4, guidance_scale=scale) for scale in (1.5, 8.5)]
    assert sizes == [1] * 8
    assert np.abs(pictures[0] - pictures[1]).max() > 1e-5
    assert np.abs(pictures[0] - draw(pipe, num_inference_steps=4, guidance_scale=1.5).images).max() > 1e-4


def lora_file(denoiser: Any, pipeline: type, folder: Path, prefix: str) -> Path:
    """Write a LoRA of a denoiser's attentions in the layout of diffusers, not zero."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    denoiser.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]), "made")
    torch.manual_seed(5)
    for name, one in denoiser.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=0.5)
    layers = get_peft_model_state_dict(denoiser, adapter_name="made")
    pipeline.save_lora_weights(folder, **{f"{prefix}_lora_layers": layers})  # type: ignore[attr-defined]
    return folder


@pytest.fixture(params=["StableDiffusion", "Flux"])
def with_lora(
    request: pytest.FixtureRequest, random_models: RandomModels, random_flux: RandomModels, tmp_path: Path
) -> tuple[Any, Path]:
    """A pipeline with an adapter, and the folder of a LoRA for its base."""
    pytest.importorskip("peft")  # The extra lora, which the nightly workflow installs.
    models = random_flux if request.param == "Flux" else random_models
    kind = pipeline_class(models.pipeline)
    other = load_base(models.pipeline, models.image_encoder)
    prefix = "transformer" if request.param == "Flux" else "unet"
    file = lora_file(other.denoiser, kind, tmp_path / "lora", prefix)
    base = load_base(models.pipeline, models.image_encoder)
    return quiet(kind.from_base(base, random_adapter(base))), file


def test_a_lora_of_the_base_is_loaded_scaled_fused_and_unloaded(with_lora: tuple[Any, Path], faces: list[Face]) -> None:
    pipe, file = with_lora
    expected = two(pipe, faces)
    pipe.load_lora_weights(file, adapter_name="style")
    styled = two(pipe, faces)
    assert np.abs(styled - expected).max() > 1e-3
    pipe.set_adapters("style", 0.5)
    half = two(pipe, faces)
    assert min(np.abs(half - other).max() for other in (styled, expected)) > 1e-4
    pipe.set_adapters("style", 1.0)
    # Both ways to be quick at once: neither takes the other's share of the weights along.
    pipe.fold_lora()
    np.testing.assert_allclose(two(pipe, faces), styled, atol=1e-3)
    pipe.fuse_lora()
    np.testing.assert_allclose(two(pipe, faces), styled, atol=1e-3)
    pipe.unfold_lora()
    np.testing.assert_allclose(two(pipe, faces), styled, atol=1e-3)
    pipe.fold_lora()
    pipe.unfuse_lora()
    np.testing.assert_allclose(two(pipe, faces), styled, atol=1e-3)
    pipe.unfold_lora()
    pipe.unload_lora_weights()
    np.testing.assert_allclose(two(pipe, faces), expected, atol=1e-4)


def test_without_people_a_lora_draws_as_in_diffusers_alone(
    random_models: RandomModels, base: Base, make_adapter: Callable[..., Adapter], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    other = load_base(random_models.pipeline, random_models.image_encoder)
    file = lora_file(other.denoiser, StableDiffusionPipeline, tmp_path, "unet")
    pipe = quiet(DynamicIDPipeline.from_base(base, make_adapter(base)))
    parent = quiet(StableDiffusionPipeline.from_pretrained(random_models.pipeline, safety_checker=None))
    for one in (pipe, parent):
        one.load_lora_weights(file)
    assert np.array_equal(draw(pipe).images, draw(parent).images)


def in_few_bits(network: torch.nn.Module, bits: int) -> torch.nn.Module:
    """Return a copy with bitsandbytes' linear layers, which diffusers puts into a network where there is a GPU."""
    import bitsandbytes

    few = copy.deepcopy(network)
    for name, layer in list(few.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            sizes = layer.in_features, layer.out_features, layer.bias is not None
            made = (
                bitsandbytes.nn.Linear8bitLt(*sizes, has_fp16_weights=False)
                if bits == 8
                else bitsandbytes.nn.Linear4bit(*sizes, compute_dtype=torch.float32)
            )
            made.load_state_dict(layer.state_dict())
            owner, _, last = name.rpartition(".")
            setattr(few.get_submodule(owner), last, made.to("cpu"))
    return few.requires_grad_(False)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_base_of_few_bits(base: Base, make_adapter: Callable[..., Adapter], faces: list[Face], bits: int) -> None:
    pytest.importorskip("bitsandbytes")  # The extra eight-bit, which the nightly workflow installs.
    small = replace(base, denoiser=in_few_bits(base.denoiser, bits))
    whole = quiet(DynamicIDPipeline.from_base(base, make_adapter(base)))
    pipe = quiet(DynamicIDPipeline.from_base(small, make_adapter(base)))
    expected, found = two(whole, faces), two(pipe, faces)
    # Few bits change a picture; that of nobody is further away.
    error = np.abs(found - expected).mean()
    assert 0 < error < np.abs(draw(whole).images - expected).mean()
    with pytest.raises(ValueError, match=r"LoRA cannot be folded into weights of torch\.u?int8"):
        pipe.fold_lora()
    assert np.array_equal(two(pipe, faces), found)


@pytest.mark.parametrize(("bits", "error"), [(8, 0.02), (4, 0.15)])
def test_a_new_adapter_begins_with_what_the_text_of_a_base_of_few_bits_does(
    base: Base, bits: int, error: float
) -> None:
    pytest.importorskip("bitsandbytes")
    made = [
        Adapter.create(unet, base.image_encoder, {"lora_rank": 2}) for unet in (base.unet, in_few_bits(base.unet, bits))
    ]
    weights = [[one.to_v_ip.weight for one in adapter.processors if hasattr(one, "to_v_ip")] for adapter in made]
    for whole, few in zip(*weights, strict=True):
        assert (few - whole).abs().mean() < error * whole.abs().mean()
