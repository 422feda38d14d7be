"""Several people, each in a window of the picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.face.face import Face
from model.foundation.random_models import RandomModels
from model.inference.pipeline import DynamicIDPipeline, DynamicIDXLPipeline
from model.network.adapter import Adapter
from model.network.base import load_base
from tests.model.inference.pictures import draw, quiet
from tests.random_bases import save_xl

TWO = ["a photo of a woman", "a photo of a man, blue background"]
# Two squares of 64 pixels that share 16.
WIDE: dict[str, Any] = {"height": 64, "width": 112}


@pytest.fixture
def xl(random_models: RandomModels, make_adapter: Callable[..., Adapter], tmp_path: Path) -> DynamicIDXLPipeline:
    torch.manual_seed(0)
    base = load_base(save_xl(tmp_path / "xl", random_models.pipeline), random_models.image_encoder)
    return quiet(DynamicIDXLPipeline.from_base(base, make_adapter(base)))


def windows(pipe: Any, faces: list[Face], **settings: Any) -> Any:
    return draw(pipe, faces=faces, window_prompts=TWO, **{**WIDE, **settings})


def test_windows_that_share_nothing_are_pictures_of_one_person_each(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    noise = torch.randn((1, 4, 16, 32), generator=torch.Generator().manual_seed(3))
    given = {"face_prompts": ["happy", None], "latents": noise, "output_type": "latent", "num_inference_steps": 4}
    both = windows(pipe, faces, **{**given, "width": 128}).images
    for place, face in enumerate(faces):
        one = draw(
            pipe,
            TWO[place],
            faces=[face],
            **{
                **given,
                "face_prompts": given["face_prompts"][place : place + 1],  # type: ignore[index]
                "latents": noise[..., 16 * place :][..., :16],
            },
        ).images
        assert torch.allclose(both[..., 16 * place :][..., :16], one, atol=1e-4)


def test_nothing_of_one_person_is_in_the_part_that_only_another_ones_window_has(
    pipe: DynamicIDPipeline, faces: list[Face]
) -> None:
    settings: dict[str, Any] = {"output_type": "latent", "num_inference_steps": 1, "return_gate_maps": True}
    first, second = (windows(pipe, people, **settings) for people in (faces, [faces[0], faces[0]]))
    # After one step, only the second window (columns 12 to 27) knows the second person.
    assert torch.allclose(first.images[..., :12], second.images[..., :12], atol=1e-5)
    assert not torch.allclose(first.images[..., 12:], second.images[..., 12:], atol=1e-4)
    assert first.gate_maps.shape == (1, 16, 28)
    assert np.allclose(first.gate_maps[..., :12], second.gate_maps[..., :12], atol=1e-5)
    assert 0 <= first.gate_maps.min() <= first.gate_maps.max() <= 1


def test_a_batch_is_as_its_pictures_alone(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    texts = [TWO, ["a photo of a person", "a photo of a person, green background"]]
    people = [faces, faces[::-1]]
    settings: dict[str, Any] = {**WIDE, "identity_scale": [1.0, 0.5]}
    both = draw(pipe, ["one", "two"], faces=people, window_prompts=texts, **settings).images
    second = draw(pipe, ["two"], faces=[people[1]], window_prompts=texts[1:], seed=1, **settings).images
    assert both.shape == (2, 64, 112, 3)
    assert np.abs(both[1] - second[0]).max() <= 1e-3


def test_without_people_every_window_has_its_text(pipe: DynamicIDPipeline) -> None:
    drawn, other = (
        draw(pipe, window_prompts=texts, output_type="latent", num_inference_steps=1, **WIDE).images
        for texts in (TWO, [TWO[0], "a photo of a beach"])
    )
    assert torch.equal(drawn[..., :12], other[..., :12])
    assert not torch.equal(drawn[..., 16:], other[..., 16:])


def test_guidance_may_end_and_the_pipeline_stays_as_it_is(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    unet, expected = pipe.unet, windows(pipe, faces).images

    def end(one: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            one._guidance_scale = 0.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"][-1:]
        return tensors

    ended = windows(
        pipe, faces, callback_on_step_end=end, callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"]
    )
    assert np.isfinite(ended.images).all()
    assert not np.array_equal(ended.images, expected)
    assert pipe.unet is unet
    assert np.array_equal(windows(pipe, faces).images, expected)
    pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        assert np.allclose(windows(pipe, faces).images, expected, atol=1e-5)
        assert hasattr(pipe.unet, "_hf_hook")


def test_windows_of_xl_have_pooled_text_and_size_of_their_own(xl: DynamicIDXLPipeline, faces: list[Face]) -> None:
    noise = torch.randn((1, 4, 16, 32), generator=torch.Generator().manual_seed(3))
    given: dict[str, Any] = {"output_type": "latent", "height": 64}
    both = draw(xl, faces=faces, window_prompts=TWO, latents=noise, width=128, **given).images
    one = draw(xl, TWO[1], faces=faces[1:], latents=noise[..., 16:], width=64, **given).images
    assert torch.allclose(both[..., 16:], one, atol=1e-4)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (TWO[:1], "expected one prompt for each of 2 people, in 1 pictures"),
        ([*TWO, TWO[0]], "expected one prompt for each of 2 people"),
        ([TWO, TWO], "in 2 pictures: expected one prompt for each of 2 people, in 1 pictures"),
    ],
)
def test_other_numbers_of_prompts_are_refused(
    pipe: DynamicIDPipeline, faces: list[Face], prompts: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        draw(pipe, faces=faces, window_prompts=prompts, **WIDE)


def test_windows_and_boxes_exclude_each_other(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    with pytest.raises(ValueError, match="boxes, masks and window_prompts: give one of the three"):
        windows(pipe, faces, boxes=[[0, 0, 1, 0.5], [0, 0.5, 1, 1]])
    with pytest.raises(ValueError, match="2 people in a picture 1 times as wide as high"):
        windows(pipe, faces, width=64)
