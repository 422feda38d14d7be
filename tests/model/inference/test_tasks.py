"""People in the other pipelines of diffusers: every class of TASKS, with small random networks of the real classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, FluxControlNetModel, T2IAdapter
from PIL import Image

from model.face.face import Face
from model.foundation.random_models import RandomModels
from model.inference.pipeline import DynamicIDPipeline, pipeline_class
from model.inference.tasks import TASKS, for_task
from model.network.adapter import Adapter
from model.network.base import Base, load_base
from model.network.latents import scale_latents
from tests.model.inference.pictures import HALVES, draw, quiet
from tests.random_bases import save_xl
from tests.random_networks import random_adapter

SIDE = 64
CLASSES = [name for names in TASKS.values() for name in names]


@pytest.fixture(scope="module")
def pipes(
    random_models: RandomModels, random_flux: RandomModels, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    torch.manual_seed(0)
    xl = save_xl(tmp_path_factory.mktemp("bases") / "xl", random_models.pipeline)
    made = {}
    for kind, folder, images in (
        ("Flux", random_flux.pipeline, random_flux.image_encoder),
        ("StableDiffusionXL", xl, random_models.image_encoder),
        ("StableDiffusion", random_models.pipeline, random_models.image_encoder),
    ):
        base = load_base(folder, images)
        made[kind] = quiet(pipeline_class(folder).from_base(base, random_adapter(base)))
    return made


def pipe_for(name: str, pipes: dict[str, Any]) -> Any:
    return next(pipe for kind, pipe in pipes.items() if name.startswith(kind))


def parts_for(name: str, pipe: Any) -> dict[str, Any]:
    """Return the control network that a pipeline needs, whose outputs are not zero."""
    torch.manual_seed(1)
    if "ControlNet" in name:
        if name.startswith("Flux"):
            # Its blocks are fewer than the transformer's, as those of published ones.
            sizes = {key: pipe.transformer.config[key] for key in ("attention_head_dim", "num_attention_heads")}
            pipe.adapter.detach(pipe.transformer)
            network = FluxControlNetModel.from_transformer(pipe.transformer, num_layers=1, num_single_layers=0, **sizes)
            pipe.adapter.attach(pipe.transformer)
        else:
            pipe.adapter.detach(pipe.unet)
            network = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 16, 16))
            pipe.adapter.attach(pipe.unet)
        for one in network.parameters():
            if not one.any():
                torch.nn.init.normal_(one, std=0.5)
        return {"controlnet": network.eval()}
    if "Adapter" in name:
        first, second = pipe.unet.config.block_out_channels
        if "XL" in name:
            sizes = {"channels": [first, second, second, second], "downscale_factor": 8}
            return {"adapter": T2IAdapter(**sizes, num_res_blocks=1, adapter_type="full_adapter_xl")}
        return {"adapter": T2IAdapter(channels=[first, second], num_res_blocks=1, downscale_factor=4)}
    return {}


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((SIDE + SIDE // 2, SIDE), Image.Resampling.BICUBIC)


def given_to(name: str, seed: int = 0) -> dict[str, Any]:
    """Return the pictures of a call, wider than high."""
    sized = (
        {}
        if "Img2Img" in name and "Flux" not in name and "ControlNet" not in name
        else {"height": SIDE, "width": SIDE + SIDE // 2}
    )
    control = "control_image" if any(x in name for x in ("Img2Img", "Inpaint", "Flux")) else "image"
    found: dict[str, Any] = {}
    if "Img2Img" in name or "Inpaint" in name:
        found = {"image": picture(seed), "strength": 0.6}
    if "Inpaint" in name:
        mask = np.zeros((SIDE, SIDE + SIDE // 2), np.uint8)
        mask[:, : SIDE // 2] = 255
        found["mask_image"] = Image.fromarray(mask)
    if "ControlNet" in name or "Adapter" in name:
        found[control] = picture(seed + 1)
    return {**found, **sized, "num_inference_steps": 4, "guidance_scale": 1.0 if "Flux" in name else 3.0}


@pytest.mark.parametrize("name", CLASSES)
def test_people_are_drawn_and_without_them_it_is_the_parent(
    name: str, pipes: dict[str, Any], faces: list[Face]
) -> None:
    pipe = pipe_for(name, pipes)
    parts, given = parts_for(name, pipe), given_to(name)
    task = for_task(pipe, getattr(diffusers, name), **parts)
    plain = draw(task, **given).images
    assert plain.shape == (1, SIDE, SIDE + SIDE // 2, 3)
    two = draw(task, faces=faces, face_prompts=["happy", None], boxes=HALVES, return_gate_maps=True, **given)
    assert two.gate_maps.shape[1] * 3 == two.gate_maps.shape[2] * 2
    assert np.isfinite(two.images).all()
    swapped = draw(task, faces=faces[::-1], boxes=HALVES, **given).images
    assert np.abs(two.images - plain).max() > 1e-3
    assert np.abs(swapped - two.images).max() > 1e-4
    off = draw(task, faces=faces[:1], identity_scale=0.0, lora_scale=0.0, **given).images
    np.testing.assert_allclose(off, plain, atol=1e-4)
    # What the picture says still counts.
    other = draw(task, faces=faces, face_prompts=["happy", None], boxes=HALVES, **given_to(name, seed=5)).images
    assert np.abs(other - two.images).max() > 1e-3


def test_boxes_hold_where_the_picture_decides_the_size(pipes: dict[str, Any], faces: list[Face]) -> None:
    """The call states no size: a person with λ = 0 in the right third changes only how the left third is drawn."""
    pipe = pipes["StableDiffusion"]
    task = for_task(pipe, diffusers.StableDiffusionImg2ImgPipeline)
    given = {**given_to("StableDiffusionImg2ImgPipeline"), "return_gate_maps": True, "num_inference_steps": 2}
    boxes = [[0, 0, 1, 1 / 3], [0, 2 / 3, 1, 1]]
    out = draw(task, faces=faces, boxes=boxes, boost=50.0, boost_steps=4, **given)
    assert out.images.shape[1:3] == (SIDE, SIDE + SIDE // 2)
    assert out.gate_maps.shape == (1, 16, 24)


def test_a_task_shares_the_adapter_and_leaves_its_pipeline_alone(pipes: dict[str, Any], faces: list[Face]) -> None:
    pipe = pipes["StableDiffusion"]
    before = draw(pipe, faces=faces[:1]).images
    network = parts_for("StableDiffusionAdapterPipeline", pipe)["adapter"]
    task = for_task(pipe, diffusers.StableDiffusionAdapterPipeline, adapter=network)
    draw(task, faces=faces[:1], **given_to("StableDiffusionAdapterPipeline"))
    assert task.adapter is pipe.adapter
    assert np.array_equal(draw(pipe, faces=faces[:1]).images, before)
    with pytest.raises(ValueError, match="save the pipeline that this one was made from"):
        task.save_pretrained("anywhere")
    with pytest.raises(ValueError, match="a T2I-Adapter is not offloaded here"):
        task.enable_model_cpu_offload(device="cpu")


def test_offloading_a_task_changes_nothing(base: Base, make_adapter: Callable[..., Adapter], faces: list[Face]) -> None:
    """Use the hooks of diffusers with the CPU as the device."""
    pipe = quiet(DynamicIDPipeline.from_base(base, make_adapter(base)))
    task, given = for_task(pipe, diffusers.StableDiffusionInpaintPipeline), given_to("StableDiffusionInpaintPipeline")
    expected = draw(task, faces=faces, **given).images
    task.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        np.testing.assert_allclose(draw(task, faces=faces, **given).images, expected, atol=1e-5)
        assert hasattr(task.unet, "_hf_hook")
        assert hasattr(task.vae, "_hf_hook")


def test_what_is_not_painted_keeps_the_given_picture(pipes: dict[str, Any], faces: list[Face]) -> None:
    """The picture that a person is put into: only the masked half of its latents changes."""
    task = for_task(pipes["StableDiffusion"], diffusers.StableDiffusionInpaintPipeline)
    given = {**given_to("StableDiffusionInpaintPipeline"), "output_type": "latent"}
    one, other = (draw(task, faces=[face], **given).images for face in faces)
    half = SIDE // 2 // task.vae_scale_factor
    assert torch.equal(one[..., half:], other[..., half:])
    assert not torch.allclose(one[..., :half], other[..., :half], atol=1e-3)


def test_an_autoencoder_with_statistics_encodes_a_picture_by_them(base: Base, faces: list[Face]) -> None:
    """Where nothing is painted, the given picture comes back: diffusers alone would scale it by one factor."""
    base.vae.register_to_config(latents_mean=[1.0, -1.0, 0.5, 2.0], latents_std=[3.0, 0.5, 2.0, 1.0])
    with torch.no_grad():
        # A posterior without spread.
        base.vae.quant_conv.weight[4:], base.vae.quant_conv.bias[4:] = 0, -30
    task = for_task(quiet(DynamicIDPipeline.from_base(base)), diffusers.StableDiffusionInpaintPipeline)
    size = (SIDE + SIDE // 2, SIDE)
    given = {"image": picture(0), "mask_image": Image.new("L", size), "height": SIDE, "width": size[0]}
    pixels = task.image_processor.preprocess(picture(0))
    encoded = base.vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(draw(task, **given, output_type="latent").images, scale_latents(base.vae, encoded))
    wanted = (base.vae.decode(encoded).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(draw(task, **given).images, wanted.detach(), atol=1e-4)


def test_wrong_classes_and_parts_are_named(pipes: dict[str, Any], faces: list[Face]) -> None:
    pipe = pipes["StableDiffusion"]
    for other in (diffusers.StableDiffusionXLInpaintPipeline, diffusers.StableDiffusionInstructPix2PixPipeline):
        with pytest.raises(ValueError, match=f"{other.__name__}: no people .* expected one of StableDiffusionImg2Img"):
            for_task(pipe, other)
    with pytest.raises(ValueError, match="StableDiffusionControlNetPipeline needs controlnet, beside the base"):
        for_task(pipe, diffusers.StableDiffusionControlNetPipeline)
    with pytest.raises(ValueError, match="StableDiffusionAdapterPipeline needs adapter"):
        for_task(pipe, diffusers.StableDiffusionAdapterPipeline)
    with pytest.raises(ValueError, match="StableDiffusionInpaintPipeline has no controlnet"):
        for_task(pipe, diffusers.StableDiffusionInpaintPipeline, controlnet=None)
    inpaint = for_task(pipe, diffusers.StableDiffusionInpaintPipeline)
    with pytest.raises(ValueError, match="draws several people in regions"):
        draw(inpaint, faces=faces, window_prompts=["a", "b"], **given_to("StableDiffusionInpaintPipeline"))
    flux = for_task(pipes["Flux"], diffusers.FluxInpaintPipeline)
    with pytest.raises(ValueError, match="does not tell which call of the transformer"):
        draw(flux, faces=faces, **{**given_to("FluxInpaintPipeline"), "guidance_scale": 3.0})
