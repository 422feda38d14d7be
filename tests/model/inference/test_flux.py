"""Drawing with FLUX.1: small random models of its classes, with and without a T5 encoder, distilled and guided."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from model.face.face import Face
from model.foundation.random_models import RandomModels, save_random_flux
from model.inference.flux_pipeline import DynamicIDFluxPipeline
from model.inference.pipeline import DynamicIDPipeline, pipeline_class
from model.network.adapter import Adapter
from model.network.base import Base, load_base
from model.network.transformer_base import TransformerBase
from tests.model.inference.pictures import HALVES, draw, quiet
from tests.random_networks import random_adapter


@pytest.fixture(scope="module")
def kinds(random_flux: RandomModels, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RandomModels]:
    folder = tmp_path_factory.mktemp("kinds")
    return {
        "schnell": random_flux,
        "dev": save_random_flux(folder / "dev", guidance_embeds=True),
        "clip": save_random_flux(folder / "clip", two_texts=False),
    }


@pytest.fixture(params=["schnell", "dev", "clip"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def flux(kinds: dict[str, RandomModels], kind: str) -> Base:
    return load_base(kinds[kind].pipeline, kinds[kind].image_encoder)


@pytest.fixture
def pipe(flux: Base) -> DynamicIDFluxPipeline:
    return quiet(DynamicIDFluxPipeline.from_base(flux, random_adapter(flux)))


@pytest.fixture
def schnell(kinds: dict[str, RandomModels]) -> DynamicIDFluxPipeline:
    base = load_base(kinds["schnell"].pipeline, kinds["schnell"].image_encoder)
    return quiet(DynamicIDFluxPipeline.from_base(base, random_adapter(base)))


def plain_picture(folder: Path, kind: str, **arguments: Any) -> np.ndarray:
    parent = quiet(FluxPipeline.from_pretrained(folder))
    length = parent.tokenizer_2.model_max_length
    generator = [torch.Generator().manual_seed(0)]
    given = {"guidance_scale": 3.0, "num_inference_steps": 3, "output_type": "np", "height": 64, "width": 64}
    guided = {} if kind == "dev" else {"negative_prompt": "", "true_cfg_scale": 3.0}
    text = {"max_sequence_length": length, "generator": generator}
    parent.vae.register_to_config(shift_factor=0.0)
    return parent("a photo of a person", **{**given, **guided, **text, **arguments}).images


@pytest.mark.parametrize("kind", ["schnell", "dev"], indirect=True)
def test_without_identity_it_is_the_base_bit_for_bit(
    pipe: DynamicIDFluxPipeline, flux: Base, kind: str, faces: list[Face]
) -> None:
    plain = plain_picture(flux.pipeline_folder, kind)
    assert np.array_equal(draw(pipe).images, plain)
    off = draw(pipe, faces=faces[:1], identity_scale=0.0, lora_scale=0.0).images
    assert np.array_equal(off, plain)
    assert np.abs(draw(pipe, faces=faces[:1]).images - plain).max() > 1e-3


def test_people_face_prompts_boxes_and_gates(pipe: DynamicIDFluxPipeline, faces: list[Face]) -> None:
    out = draw(pipe, faces=faces, face_prompts=["happy", None], boxes=HALVES, return_gate_maps=True)
    assert np.isfinite(out.images).all()
    assert out.gate_maps.shape == (1, 16, 16)
    assert out.heat_maps()[0].size == (64, 64)
    assert not np.array_equal(out.images, draw(pipe, faces=faces, boxes=HALVES).images)
    assert (pipe.cut_from("a photo, " * 12) != "") == (pipe.tokenizer_2 is not None), "32 letters, or 77 tokens"
    assert not np.array_equal(out.images, draw(pipe, faces=faces[::-1], face_prompts=[None, "happy"]).images)
    wide = draw(pipe, faces=faces, height=64, width=96, boost=1.0, boost_steps=2, layout_steps=1)
    assert wide.images.shape == (1, 64, 96, 3)
    assert pipe.transformer.config.in_channels == 16  # no call leaves anything behind


def test_a_batch_draws_what_single_calls_draw(pipe: DynamicIDFluxPipeline, faces: list[Face]) -> None:
    prompts, people = ["a photo of a person", "a drawing"], [[faces[0]], [faces[1]]]
    together = draw(pipe, prompts, people).images
    for row, (prompt, person) in enumerate(zip(prompts, people, strict=True)):
        alone = draw(pipe, prompt, person, seed=row).images
        np.testing.assert_allclose(alone[0], together[row], atol=1e-4)


def test_several_pictures_of_a_prompt_and_given_texts(pipe: DynamicIDFluxPipeline, faces: list[Face]) -> None:
    two = draw(pipe, faces=faces[:1], num_images_per_prompt=2).images
    alone = draw(pipe, faces=faces[:1]).images
    np.testing.assert_allclose(two[0], alone[0], atol=1e-4)
    assert not np.allclose(two[0], two[1], atol=1e-2)
    states, pooled, _ = pipe.encode_prompt(["a photo of a person"] * 2, max_sequence_length=32)
    given = {"prompt_embeds": states, "pooled_prompt_embeds": pooled}
    generators = [torch.Generator().manual_seed(row) for row in range(2)]
    settings = {"num_inference_steps": 3, "output_type": "np", "guidance_scale": 3.0, "generator": generators}
    found = pipe(None, faces=faces[:1], **given, **settings).images
    np.testing.assert_allclose(found, two, atol=1e-4)


def test_given_noise_may_be_of_the_latents_own_shape(schnell: DynamicIDFluxPipeline) -> None:
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7))
    packed = FluxPipeline._pack_latents(noise, 1, 4, 16, 16)
    assert np.array_equal(draw(schnell, latents=noise).images, draw(schnell, latents=packed).images)


def test_the_negative_side_of_guidance_has_nobody(schnell: DynamicIDFluxPipeline, faces: list[Face]) -> None:
    seen, transformer = [], schnell.transformer

    def note(module: Any, arguments: Any, keywords: Any) -> None:
        state = keywords["joint_attention_kwargs"]["identity"]
        null = schnell.adapter.null_tokens  # type: ignore[union-attr]
        seen.append((bool(torch.equal(state.tokens, null)), state.step))

    hook = transformer.register_forward_pre_hook(note, with_kwargs=True)
    draw(schnell, faces=faces[:1])
    hook.remove()
    assert seen == [(False, 0), (True, 0), (False, 1), (True, 1), (False, 2), (True, 2)]
    assert schnell.transformer is transformer


def test_offloading_changes_nothing(schnell: DynamicIDFluxPipeline, faces: list[Face]) -> None:
    expected = draw(schnell, faces=faces[:1]).images
    schnell.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        np.testing.assert_allclose(draw(schnell, faces=faces[:1]).images, expected, atol=1e-5)
    assert hasattr(schnell.transformer, "_hf_hook")


def test_the_training_asks_what_the_drawing_asks(flux: TransformerBase, pipe: DynamicIDFluxPipeline) -> None:
    """The prediction of the base is that of the transformer in diffusers' own loop."""
    asked: list[Any] = []
    keep = lambda module, arguments, keywords, output: asked.append((keywords, output[0]))  # noqa: E731
    hook = pipe.transformer.register_forward_hook(keep, with_kwargs=True)
    draw(pipe, guidance_scale=3.5, true_cfg_scale=1.0, num_inference_steps=1, output_type="latent")
    hook.remove()
    keywords, expected = asked[0]
    latents = FluxPipeline._unpack_latents(keywords["hidden_states"], 64, 64, 4)
    steps = keywords["timestep"] * 1000
    found = flux.predict(latents, steps, flux.text_states(["a photo of a person"]))
    torch.testing.assert_close(found, FluxPipeline._unpack_latents(expected, 64, 64, 4))


def test_saved_and_loaded_it_draws_the_same(
    pipe: DynamicIDFluxPipeline, flux: Base, faces: list[Face], tmp_path: Path
) -> None:
    expected = draw(pipe, faces=faces[:1]).images
    pipe.save_pretrained(tmp_path / "saved")
    again = quiet(DynamicIDFluxPipeline.from_pretrained(tmp_path / "saved"))
    assert np.array_equal(draw(again, faces=faces[:1]).images, expected)
    assert pipe.adapter is not None
    pipe.adapter.save(tmp_path / "adapter", flux.reference("flux", "clip"))
    kind = pipeline_class(flux.pipeline_folder)
    loaded = quiet(kind.from_folders(flux.pipeline_folder, flux.image_encoder_folder, tmp_path / "adapter"))
    assert np.array_equal(draw(loaded, faces=faces[:1]).images, expected)
    loaded.fold_lora()
    np.testing.assert_allclose(draw(loaded, faces=faces[:1]).images, expected, atol=1e-3)


def test_bad_input_is_named(
    schnell: DynamicIDFluxPipeline,
    base: Base,
    kinds: dict[str, RandomModels],
    make_adapter: Callable[..., Adapter],
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="height 60: expected a multiple of 8"):
        draw(schnell, height=60, width=64)
    with pytest.raises(ValueError, match="guidance_rescale: flow matching has none"):
        draw(schnell, guidance_rescale=0.7)
    with pytest.raises(ValueError, match=r"FLUX.1, with a transformer; DynamicIDPipeline needs Stable Diffusion 1.x"):
        DynamicIDPipeline.from_base(load_base(kinds["schnell"].pipeline, kinds["schnell"].image_encoder))
    dev = load_base(kinds["dev"].pipeline, kinds["dev"].image_encoder)
    with pytest.raises(ValueError, match="negative_prompt: this transformer is guidance-distilled and reads none"):
        draw(quiet(DynamicIDFluxPipeline.from_base(dev)), negative_prompt="blurred")
    make_adapter(base).save(tmp_path / "adapter", base.reference("sd", "clip"))
    with pytest.raises(ValueError, match="made for a UNet2DConditionModel, the base has a FluxTransformer2DModel"):
        schnell.load_adapter(tmp_path / "adapter")
    broken = tmp_path / "broken"
    shutil.copytree(kinds["clip"].pipeline, broken)
    shutil.rmtree(broken / "scheduler")
    with pytest.raises(ValueError, match=r"broken: scheduler missing; expected a FLUX.1 model"):
        load_base(broken, kinds["clip"].image_encoder)
    shutil.copytree(base.pipeline_folder / "scheduler", broken / "scheduler")
    with pytest.raises(ValueError, match="a DDIMScheduler; expected one of flow matching"):
        load_base(broken, kinds["clip"].image_encoder)
    shutil.copytree(kinds["clip"].pipeline / "scheduler", broken / "scheduler", dirs_exist_ok=True)
    index = json.loads((broken / "model_index.json").read_text())
    second = {**index, "transformer": ["diffusers", "Flux2Transformer2DModel"], "_class_name": "Flux2Pipeline"}
    (broken / "model_index.json").write_text(json.dumps(second))
    with pytest.raises(ValueError, match=r"a Flux2Pipeline with Flux2Transformer2DModel; expected .* or of FLUX\.1"):
        load_base(broken, kinds["clip"].image_encoder)
    index |= {"text_encoder_2": ["transformers", "T5EncoderModel"], "tokenizer_2": ["transformers", "T5Tokenizer"]}
    (broken / "model_index.json").write_text(json.dumps(index))
    for part in ("text_encoder_2", "tokenizer_2"):
        shutil.copytree(kinds["dev"].pipeline / part, broken / part)
    with pytest.raises(ValueError, match="joint_attention_dim 64; expected 40, the width of the text"):
        load_base(broken, kinds["clip"].image_encoder)


def test_windows_are_for_other_bases(schnell: DynamicIDFluxPipeline, faces: list[Face]) -> None:
    with pytest.raises(ValueError, match="draws several people in regions of one picture: give boxes"):
        draw(schnell, faces=faces, window_prompts=["a man", "a woman"], height=64, width=128)
