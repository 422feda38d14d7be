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
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from model.face.face import Face
from model.foundation.random_models import RandomModels, random_tokenizer
from model.inference.pipeline import DynamicIDPipeline, DynamicIDXLPipeline, pipeline_class
from model.network.adapter import Adapter
from model.network.base import Base, empty_states, load_base
from model.network.methods import METHODS
from tests.model.inference.pictures import HALVES, draw, quiet

WIDTH = 64
# Unlike that of 1.x, the UNets of these families have linear projections and another number of heads per level.
FAMILY = {
    "sample_size": 16,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "cross_attention_dim": WIDTH,
    "norm_num_groups": 8,
}


def text_config(width: int, tokenizer: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="gelu",
    )


def save_sd2(folder: Path, plain: Path) -> None:
    """2.x: v-prediction and attention in float32."""
    shutil.copytree(plain, folder)
    unet = UNet2DConditionModel(
        **FAMILY,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        upcast_attention=True,
    )
    unet.save_pretrained(folder / "unet")
    DDIMScheduler(prediction_type="v_prediction", clip_sample=False, steps_offset=1).save_pretrained(
        folder / "scheduler"
    )


def save_xl(folder: Path, plain: Path) -> None:
    """XL: two text encoders, size and pooled text as added conditions, attention in deeper levels only."""
    tokenizer, half = random_tokenizer(), WIDTH // 2
    unet = UNet2DConditionModel(
        **FAMILY,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + half,
    )
    StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(plain / "vae"),
        text_encoder=CLIPTextModel(text_config(half, tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(half, tokenizer)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    ).save_pretrained(folder)


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
        assert torch.allclose(pooled[:, WIDTH // 2 :], encoded[2], atol=1e-6)


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
