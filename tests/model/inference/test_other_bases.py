"""The same adapter code on Stable Diffusion 2.x and XL: small random models of each class."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel, StableDiffusionPipeline, StableDiffusionXLPipeline

from model.face.face import Face
from model.foundation.random_models import RandomModels
from model.inference.pipeline import DynamicIDPipeline, DynamicIDXLPipeline, pipeline_class
from model.network.adapter import Adapter
from model.network.base import Base, empty_states, load_base
from model.network.methods import METHODS
from tests.model.inference.pictures import HALVES, draw, quiet
from tests.random_bases import WIDTH, XL_WIDTHS, save_sd2, save_xl
from tests.random_networks import random_adapter


@pytest.fixture(scope="module")
def folders(random_models: RandomModels, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {kind: tmp_path_factory.mktemp("bases") / kind for kind in ("sd2", "xl")}
    torch.manual_seed(0)
    save_sd2(found["sd2"], random_models.pipeline)
    save_xl(found["xl"], random_models.pipeline)
    return found


@pytest.fixture(params=["sd2", "xl"])
def folder(folders: dict[str, Path], request: pytest.FixtureRequest) -> Path:
    return folders[request.param]


@pytest.fixture
def base(folder: Path, random_models: RandomModels) -> Base:
    return load_base(folder, random_models.image_encoder)


@pytest.fixture
def pipe(base: Base, folder: Path, make_adapter: Callable[..., Adapter]) -> Any:
    return quiet(pipeline_class(folder).from_base(base, make_adapter(base)))


def test_without_identity_it_is_the_base_model(pipe: Any, folder: Path, faces: list[Face]) -> None:
    parent = StableDiffusionXLPipeline if folder.name == "xl" else StableDiffusionPipeline
    plain = draw(quiet(parent.from_pretrained(folder, **({} if folder.name == "xl" else {"safety_checker": None}))))
    assert np.array_equal(draw(pipe).images, plain.images)
    off = draw(pipe, faces=faces[:1], identity_scale=0.0, lora_scale=0.0).images
    assert np.abs(off - plain.images).max() <= 1e-4
    out = draw(pipe, faces=faces, face_prompts=["happy", None], boxes=HALVES, return_gate_maps=True)
    assert np.isfinite(out.images).all()
    assert np.abs(out.images - plain.images).max() > 1e-3
    assert out.gate_maps.shape == (1, 16, 16)
    assert out.heat_maps()[0].size == (64, 64)
    neutral = draw(pipe, faces=faces, boxes=HALVES).images
    assert np.abs(out.images - neutral).max() > 1e-4
    pipe.fold_lora()
    assert np.abs(draw(pipe, faces=faces, boxes=HALVES).images - neutral).max() <= 1e-3
    pipe.unload_adapter()
    assert np.array_equal(draw(pipe).images, plain.images)


def test_a_batch_and_a_saved_pipeline(pipe: Any, faces: list[Face], tmp_path: Path) -> None:
    people = [faces, faces[::-1]]
    settings: dict[str, Any] = {"boxes": HALVES, "height": 64, "width": 48}
    both = draw(pipe, ["one", "two"], faces=people, negative_prompt=["ugly", "blurred"], **settings)
    second = draw(pipe, ["two"], faces=[people[1]], negative_prompt=["blurred"], seed=1, **settings)
    assert both.images.shape == (2, 64, 48, 3)
    assert np.abs(both.images[1] - second.images[0]).max() <= 1e-3
    pipe.fold_lora()
    folded = draw(pipe, ["two"], faces=[people[1]], **settings).images
    pipe.save_pretrained(tmp_path / "saved")
    assert np.array_equal(draw(pipe, ["two"], faces=[people[1]], **settings).images, folded)
    again = quiet(type(pipe).from_pretrained(tmp_path / "saved"))
    pipe.unfold_lora()
    expected = draw(pipe, ["two"], faces=[people[1]], **settings).images
    assert np.array_equal(draw(again, ["two"], faces=[people[1]], **settings).images, expected)


def test_text_is_encoded_as_by_the_base_pipeline(base: Base, pipe: Any) -> None:
    states, pooled = base.encode_text(["one", "another text"])
    assert pooled.shape == (2, WIDTH)
    options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    encoded = pipe.encode_prompt(["one", "another text"], **options)
    assert torch.allclose(states, encoded[0], atol=1e-6)
    if len(base.texts) == 2:
        assert torch.allclose(pooled[:, XL_WIDTHS[0] :], encoded[2], atol=1e-6)


def test_the_pipeline_class_depends_on_the_folder(
    folders: dict[str, Path], random_models: RandomModels, tmp_path: Path
) -> None:
    assert pipeline_class(folders["sd2"]) is DynamicIDPipeline
    assert pipeline_class(folders["xl"]) is DynamicIDXLPipeline
    with pytest.raises(ValueError, match=r"Stable Diffusion XL.*use model\.inference\.pipeline\.pipeline_class"):
        DynamicIDPipeline.from_pretrained(folders["xl"])
    with pytest.raises(ValueError, match="with one text encoder; DynamicIDXLPipeline"):
        DynamicIDXLPipeline.from_folders(folders["sd2"], random_models.image_encoder)
    index = {"_class_name": "StableDiffusion3Pipeline", "transformer": ["diffusers", "SD3Transformer2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match="StableDiffusion3Pipeline with SD3Transformer2DModel; expected a UNet2D"):
        load_base(tmp_path, random_models.image_encoder)
    with pytest.raises(ValueError, match="DiTTransformer2DModel: expected a UNet2DConditionModel"):
        Adapter(DiTTransformer2DModel(2, 8, num_layers=1, sample_size=4, norm_num_groups=1), 48, {}, 0.3)


def test_facial_parts_are_fused_into_the_words(base: Base, folder: Path, faces: list[Face]) -> None:
    """Also after first steps without them, and in the negative text as published."""
    torch.manual_seed(0)
    sizes = {"lora_rank": 2, "parts_width": 64, "parts_depth": 1}
    adapter = Adapter.create(base.unet, base.image_encoder, sizes, method=METHODS["consistentid"])
    adapter.encode_null_tokens(empty_states(base.image_encoder))
    pipe = quiet(pipeline_class(folder).from_base(base, adapter))
    drawn = [draw(pipe, faces=faces[:1], plain_steps=steps).images for steps in (0, 1, 3)]
    adapter.plain_steps = 0
    drawn.append(draw(pipe, faces=faces[:1]).images)
    for number, one in enumerate(drawn):
        assert np.isfinite(one).all()
        assert not any(np.allclose(one, other) for other in drawn[:number])
    if folder.name == "xl":
        with pytest.raises(ValueError, match="prompt_2: consistentid fuses facial parts"):
            draw(pipe, faces=faces[:1], prompt_2="another text")


@pytest.mark.parametrize(("stated", "expected"), [(True, torch.float32), (False, torch.bfloat16)])
def test_an_autoencoder_that_overflows_stays_in_single_precision(
    folders: dict[str, Path],
    random_models: RandomModels,
    faces: list[Face],
    tmp_path: Path,
    *,
    stated: bool,
    expected: Any,
) -> None:
    folder = tmp_path / "xl"
    shutil.copytree(folders["xl"], folder)
    config = json.loads((folder / "vae/config.json").read_text())
    (folder / "vae/config.json").write_text(json.dumps({**config, "force_upcast": stated}))
    half = load_base(folder, random_models.image_encoder, dtype="bfloat16")
    assert half.unet.dtype == torch.bfloat16
    assert half.vae.dtype == expected
    pictures = np.full((1, 64, 64, 3), 128, np.uint8)
    assert half.encode_images(pictures).dtype == expected
    assert half.decode_latents(torch.zeros(1, 4, 16, 16)).shape == (1, 64, 64, 3)
    pipe = quiet(DynamicIDXLPipeline.from_base(half, random_adapter(half)))
    drawn = draw(pipe, faces=faces[:1])
    assert np.isfinite(drawn.images).all()
    assert half.vae.dtype == expected, "other calls use it, too"
