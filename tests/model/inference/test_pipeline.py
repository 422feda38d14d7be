"""Run the pipeline end to end on small random models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.callbacks import SDCFGCutoffCallback
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from model.face.face import Blend, Face
from model.foundation.random_models import RandomModels
from model.inference.gate_maps import heat_map
from model.inference.pipeline import DynamicIDPipeline
from model.network.adapter import Adapter
from model.network.base import Base, BaseReference, load_base
from model.network.methods import METHODS
from tests.model.inference.pictures import HALVES, draw, quiet


def test_without_faces_it_is_the_parent(pipe: DynamicIDPipeline, random_models: RandomModels) -> None:
    parent = quiet(StableDiffusionPipeline.from_pretrained(random_models.pipeline, safety_checker=None))
    assert np.array_equal(draw(pipe).images, draw(parent).images)
    pipe.unload_adapter()
    assert np.array_equal(draw(pipe).images, draw(parent).images)


def test_faces_and_their_prompts_change_the_picture(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    base = draw(pipe).images
    one = draw(pipe, faces=faces[:1]).images
    assert not np.allclose(one, base, atol=1e-3)
    assert np.array_equal(one, draw(pipe, faces=faces[:1]).images)
    assert not np.allclose(one, draw(pipe, faces=faces[1:]).images, atol=1e-4)
    asked = draw(pipe, faces=faces[:1], face_prompts=["happy, turned to the left"]).images
    assert not np.allclose(one, asked, atol=1e-4)
    assert np.allclose(draw(pipe, faces=faces[:1], identity_scale=0.0, lora_scale=0.0).images, base, atol=1e-4)
    assert not np.allclose(one, draw(pipe, faces=faces[:1], gate=False).images, atol=1e-4)


def test_a_saved_pipeline_renders_the_same_pictures(pipe: DynamicIDPipeline, faces: list[Face], tmp_path: Path) -> None:
    expected = draw(pipe, faces=faces, face_prompts=["happy", None], boxes=HALVES)
    pipe.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "adapter" / "adapter.safetensors").is_file()
    assert np.array_equal(draw(pipe, faces=faces, face_prompts=["happy", None], boxes=HALVES).images, expected.images)
    again = quiet(DynamicIDPipeline.from_pretrained(tmp_path / "saved"))
    assert np.array_equal(draw(again, faces=faces, face_prompts=["happy", None], boxes=HALVES).images, expected.images)
    again.save_pretrained(tmp_path / "twice")
    weights = "adapter/adapter.safetensors"
    assert (tmp_path / "saved" / weights).read_bytes() == (tmp_path / "twice" / weights).read_bytes()
    plain = quiet(StableDiffusionPipeline.from_pretrained(tmp_path / "saved"))
    assert np.array_equal(draw(plain).images, draw(pipe).images)


def test_adapters_are_replaced_and_removed(
    pipe: DynamicIDPipeline, base: Base, faces: list[Face], make_adapter: Callable[..., Adapter], tmp_path: Path
) -> None:
    first = draw(pipe, faces=faces[:1]).images
    pipe.adapter.save(tmp_path / "one", base.reference("sd", "clip"))
    make_adapter(base, seed=9).save(tmp_path / "two", base.reference("sd", "clip"))
    pipe.load_adapter(tmp_path / "two")
    assert not np.allclose(draw(pipe, faces=faces[:1]).images, first, atol=1e-4)
    pipe.load_adapter(tmp_path / "one")
    assert np.array_equal(draw(pipe, faces=faces[:1]).images, first)
    pipe.unload_adapter()
    with pytest.raises(ValueError, match="no adapter"):
        draw(pipe, faces=faces[:1])


def test_an_adapter_of_another_base_is_refused(
    random_models: RandomModels, base: Base, make_adapter: Callable[..., Adapter], tmp_path: Path
) -> None:
    adapter, folders = make_adapter(base), (random_models.pipeline, random_models.image_encoder)
    adapter.save(tmp_path / "right", base.reference("sd", "clip"))
    assert DynamicIDPipeline.from_folders(*folders, tmp_path / "right").adapter is not None
    adapter.save(tmp_path / "wrong", BaseReference("sd", "clip", "f" * 64))
    with pytest.raises(ValueError, match=r"fingerprint ffffffffffff.*base\.allow_other"):
        DynamicIDPipeline.from_folders(*folders, tmp_path / "wrong")
    allowed = DynamicIDPipeline.from_folders(*folders, tmp_path / "wrong", allow_other_base=True)
    assert allowed.base_fingerprint == base.fingerprint()
    assert allowed.adapter is not None
    assert allowed.adapter.base_reference == BaseReference("sd", "clip", "f" * 64)


def test_a_batch_equals_single_pictures(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    boxes = [HALVES, [[0.2, 0, 1, 0.6], [0, 0.4, 0.8, 1]]]
    people = [faces, faces[::-1]]
    asked = [["happy", None], ["turned to the left", "neutral"]]
    given = {"faces": people, "face_prompts": asked, "boxes": boxes, "negative_prompt": ["ugly", "blurred"]}
    boost = {"boost": 2.0, "boost_steps": 1}
    together = draw(pipe, ["one", "two"], **given, **boost)
    for row, prompt in enumerate(["one", "two"]):
        alone = draw(pipe, prompt, **{name: values[row] for name, values in given.items()}, seed=row, **boost)
        assert np.allclose(alone.images[0], together.images[row], atol=2e-4)


def test_copies_of_a_prompt_are_adjacent(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    people = [faces[:1], faces[1:]]
    four = draw(pipe, ["one", "two"], faces=people, num_images_per_prompt=2).images
    assert len(four) == 4
    assert np.allclose(four[2], draw(pipe, "two", faces=faces[1:], seed=2).images[0], atol=2e-4)


def test_given_tokens_replace_faces(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    tokens = pipe.tokens_of(faces[:1], ["sad"])
    assert tokens.shape == (1, 4, 64)
    expected = draw(pipe, faces=faces[:1], face_prompts=["sad"]).images
    assert np.array_equal(draw(pipe, identity_tokens=tokens).images, expected)
    assert np.array_equal(draw(pipe, faces=faces[1:], identity_tokens=tokens).images, expected)
    both = draw(pipe, ["one", "two"], identity_tokens=tokens).images
    assert np.allclose(both[0], draw(pipe, "one", identity_tokens=tokens).images[0], atol=2e-4)


def test_tokens_of_people_and_pictures(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    two = pipe.tokens_of(faces)
    assert two.shape == (1, 8, 64)
    assert torch.allclose(two[:, 4:], pipe.tokens_of(faces[1:]), atol=1e-5)
    batch = pipe.tokens_of([[faces[0]], [faces[1]], [faces[0]]], [[None], ["happy"], ["happy"]])
    assert batch.shape == (3, 4, 64)
    assert torch.allclose(batch[:1], two[:, :4], atol=1e-5)
    assert torch.allclose(batch[2:], pipe.tokens_of(faces[:1], ["smiling, facing the camera"]), atol=1e-5)
    assert not torch.allclose(batch[2], batch[0], atol=1e-3)


@pytest.mark.parametrize(
    "scheduler",
    [
        *("DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete"),
        *("DPMSolverMultistep", "DPMSolverSinglestep", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DEISMultistep"),
        *("UniPCMultistep", "LCM", "TCD"),
    ],
)
def test_any_scheduler(pipe: DynamicIDPipeline, faces: list[Face], scheduler: str) -> None:
    pipe.scheduler = getattr(diffusers, f"{scheduler}Scheduler").from_config(pipe.scheduler.config)
    images = draw(pipe, faces=faces, boost=2.0, boost_steps=2, num_inference_steps=4).images
    assert images.shape == (1, 64, 64, 3)
    assert np.isfinite(images).all()


def test_gate_maps(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    plain = draw(pipe, faces=faces[:1])
    assert plain.gate_maps is None
    out = draw(pipe, ["one", "two"], faces=faces[:1], return_gate_maps=True)
    assert out.gate_maps.shape == (2, 16, 16)
    assert out.gate_maps.min() >= 0
    assert out.gate_maps.max() <= 1
    wide = draw(pipe, faces=faces, height=32, width=96, return_gate_maps=True)
    assert wide.images.shape == (1, 32, 96, 3)
    assert wide.gate_maps.shape == (1, 8, 24)
    images, _, gates = draw(pipe, faces=faces[:1], return_gate_maps=True, return_dict=False)
    assert images.shape == (1, 64, 64, 3)
    assert gates.shape == (1, 16, 16)
    with pytest.raises(ValueError, match="gate was off"):
        draw(pipe, faces=faces[:1], gate=False, return_gate_maps=True)


def test_callbacks_are_called_in_every_step(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    steps = []

    def record(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append((step, tuple(tensors["latents"].shape)))
        return tensors

    draw(pipe, faces=faces[:1], callback_on_step_end=record)
    assert steps == [(step, (1, 4, 16, 16)) for step in range(3)]


def test_guidance_may_end_before_the_last_step(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    cutoff = SDCFGCutoffCallback(cutoff_step_ratio=0.5)
    early = draw(pipe, faces=faces, boxes=HALVES, callback_on_step_end=cutoff, return_gate_maps=True)
    assert not np.array_equal(early.images, draw(pipe, faces=faces, boxes=HALVES).images)
    assert early.gate_maps.shape == (1, 16, 16)


def test_no_guidance_and_embeddings_as_prompt(pipe: DynamicIDPipeline, base: Base, faces: list[Face]) -> None:
    expected = draw(pipe, "a man", faces=faces[:1], guidance_scale=1.0).images
    states, _ = base.encode_text(["a man"])
    found = draw(pipe, None, faces=faces[:1], prompt_embeds=states, guidance_scale=1.0).images
    assert np.allclose(found, expected, atol=1e-5)


def test_latent_statistics_are_used_in_decoding(pipe: DynamicIDPipeline, base: Base, faces: list[Face]) -> None:
    base.vae.register_to_config(latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 3.0, 4.0])
    latents = draw(pipe, faces=faces[:1], output_type="latent").images
    pictures = draw(pipe, faces=faces[:1]).images
    assert np.abs(base.decode_latents(latents)[0] / 255 - pictures[0]).max() <= 0.51 / 255


def test_half_precision_applies_to_the_adapter(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    pipe.to(torch.bfloat16)
    assert {parameter.dtype for parameter in pipe.adapter.parameters()} == {torch.bfloat16}
    assert np.isfinite(draw(pipe, faces=faces, face_prompts=["happy", None]).images).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"face_prompts": ["happy"]}, "need faces"),
        ({"people": 1, "face_prompts": ["bored"]}, "names no expression"),
        ({"people": 2, "boxes": [[0, 0, 1, 1]]}, "each of 2 people"),
        ({"people": 1, "boxes": [[0, 0, 1.2, 1]]}, "box 0,0,1.2,1"),
        ({"people": 1, "boxes": [[0.5, 0, 0.5, 1]]}, "box 0.5,0,0.5,1"),
        ({"people": 0}, "at least one person"),
        ({"people": 1, "face_prompts": ["happy", "sad"]}, "face prompts: 2, people: 1; expected one face prompt per"),
        ({"people": 1, "face_prompts": "happy"}, "a list with one entry per person"),
        ({"people": 1, "height": 100, "width": 64}, "height 100: expected a multiple of 8, for example 96 or 104"),
        ({"people": 2, "identity_scale": [1.0]}, "one for each of 2"),
        ({"people": 1, "masks": np.zeros((1, 8, 8), np.float32)}, "mask of person 1: it covers nothing"),
        ({"people": 1, "masks": np.full((1, 8, 8), 2.0)}, "values between 0 and 1"),
        ({"people": 2, "masks": np.ones((1, 8, 8))}, "for each of 2 people"),
        ({"people": 1, "masks": np.ones((1, 8, 8)), "boxes": [[0, 0, 1, 1]]}, "give one of the three"),
    ],
)
def test_wrong_arguments_are_named(
    pipe: DynamicIDPipeline, faces: list[Face], arguments: dict[str, Any], message: str
) -> None:
    people = arguments.pop("people", None)
    with pytest.raises(ValueError, match=message):
        draw(pipe, faces=None if people is None else faces[:people], **arguments)


def test_wrong_numbers_of_pictures_and_people_are_named(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    with pytest.raises(ValueError, match="3 pictures for 2 prompts"):
        draw(pipe, ["one", "two"], faces=[faces] * 3)
    with pytest.raises(ValueError, match="same number of people"):
        draw(pipe, ["one", "two"], faces=[faces, faces[:1]])


def test_without_imr_a_face_prompt_is_refused(
    base: Base, faces: list[Face], make_adapter: Callable[..., Adapter]
) -> None:
    pipe = quiet(DynamicIDPipeline.from_base(base, make_adapter(base, imr=False)))
    assert draw(pipe, faces=faces[:1]).images.shape == (1, 64, 64, 3)
    with pytest.raises(ValueError, match="train_imr"):
        draw(pipe, faces=faces[:1], face_prompts=["happy"])


def test_a_person_must_be_a_face(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    with pytest.raises(ValueError, match="a person given as ndarray: expected a Face"):
        pipe.tokens_of([faces[0].crop])
    wrong = Face(faces[0].embedding[:128], faces[0].crop, faces[0].landmarks)
    with pytest.raises(ValueError, match=r"embedding of shape \(128,\): expected \(512,\)"):
        pipe.tokens_of([wrong])


def test_a_mix_interpolates_two_people(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    first, second = (pipe.tokens_of([face], ["sad"]) for face in faces)
    for share in (0.0, 0.25, 1.0):
        mixed = pipe.tokens_of([Blend(*faces, share)], ["sad"])
        assert torch.allclose(mixed, first + share * (second - first), atol=1e-6)
    both = pipe.tokens_of([Blend(*faces), faces[0]], [None, "sad"])
    assert torch.allclose(both[:, 4:], first, atol=1e-6)
    picture = draw(pipe, faces=[Blend(*faces)]).images
    assert all(np.abs(picture - draw(pipe, faces=[face]).images).max() > 1e-4 for face in faces)
    with pytest.raises(ValueError, match="share 2"):
        Blend(*faces, 2)


def test_masks_place_people_as_boxes_do(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    masks = np.zeros((2, 64, 64), np.uint8)
    masks[0, :, :32], masks[1, :, 32:] = 255, 255
    boost = {"boost": 2.0, "boost_steps": 2}
    expected = draw(pipe, faces=faces, boxes=HALVES, **boost).images
    assert np.array_equal(draw(pipe, faces=faces, masks=masks, **boost).images, expected)
    batch = draw(pipe, ["a photo of a person"] * 2, faces=[faces] * 2, masks=np.stack([masks, masks[::-1]]), **boost)
    assert np.allclose(batch.images[0], expected[0], atol=2e-4)
    turned = draw(pipe, faces=faces, boxes=HALVES[::-1], seed=1, **boost).images
    assert np.allclose(batch.images[1], turned[0], atol=2e-4)


def test_a_scale_per_person(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    both = draw(pipe, faces=faces, identity_scale=[1.0, 1.0]).images
    assert np.allclose(both, draw(pipe, faces=faces).images, atol=1e-5)
    first = draw(pipe, faces=faces, identity_scale=[1.0, 0.0]).images
    assert np.abs(first - both).max() > 1e-4
    batch = draw(pipe, ["one", "one"], faces=[faces] * 2, identity_scale=[[1.0, 1.0], [1.0, 0.0]]).images
    assert np.allclose(batch[1], draw(pipe, "one", faces=faces, identity_scale=[1.0, 0.0], seed=1).images, atol=2e-4)


def test_heat_maps_are_overlays_of_the_picture(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    out = draw(pipe, faces=faces[:1], return_gate_maps=True)
    picture = (out.images[0] * 255).round().astype(np.uint8)
    assert np.array_equal(np.asarray(heat_map(picture, np.zeros((16, 16)))), picture)
    hot = np.zeros((16, 16))
    hot[:8] = 1
    warm = np.asarray(heat_map(picture, hot, 1.0)).astype(int)
    assert np.abs(warm[:24] - np.array([252, 255, 164])).max() <= 1
    assert np.array_equal(warm[40:], picture[40:])
    assert np.array_equal(np.asarray(out.heat_maps()[0]), np.asarray(heat_map(out.images[0], out.gate_maps[0])))
    with pytest.raises(ValueError, match="return_gate_maps=True"):
        draw(pipe, faces=faces[:1]).heat_maps()


def test_the_safety_checker_of_the_base_is_kept(
    random_models: RandomModels, make_adapter: Callable[..., Adapter], faces: list[Face], tmp_path: Path
) -> None:
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config={**vision, "image_size": 32, "patch_size": 16}, projection_dim=8)
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    StableDiffusionPipeline.from_pretrained(
        random_models.pipeline, safety_checker=checker, feature_extractor=processor
    ).save_pretrained(tmp_path / "safe")
    base = load_base(tmp_path / "safe", random_models.image_encoder)
    pipe = quiet(DynamicIDPipeline.from_base(base, make_adapter(base)))
    pipe.save_pretrained(tmp_path / "again")
    for shown in (pipe, quiet(DynamicIDPipeline.from_pretrained(tmp_path / "again"))):
        # Face crops are not preprocessed with the safety checker's parameters.
        assert shown.crop_size == 64
        for flagged in (False, True):
            shown.safety_checker.concept_embeds_weights.data.fill_(-2.0 if flagged else 2.0)
            out = draw(shown, faces=faces[:1])
            assert out.nsfw_content_detected == [flagged]
            assert (out.images.max() == 0) == flagged


def test_offloading_changes_nothing(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    """Use the hooks of diffusers with the CPU as the device."""
    settings: dict[str, Any] = {"faces": faces, "face_prompts": ["happy", None], "boxes": HALVES}
    pipe.fold_lora()
    expected = draw(pipe, **settings).images
    pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        assert np.allclose(draw(pipe, **settings).images, expected, atol=1e-5)
        assert hasattr(pipe.unet, "_hf_hook")


def test_meta_weights_are_refused(pipe: DynamicIDPipeline, base: Base, tmp_path: Path) -> None:
    """Sequential offloading replaces weights by meta tensors."""
    adapter = pipe.adapter
    adapter.save(tmp_path, base.reference("sd", "clip"))
    pipe.fold_lora()
    pipe.unet.to("meta")
    with pytest.raises(ValueError, match="unfolded under sequential"):
        pipe.unfold_lora()
    for attach in (lambda: pipe.load_adapter(tmp_path), lambda: pipe.set_adapter(adapter)):
        with pytest.raises(ValueError, match="load it first, then offload"):
            attach()


def test_an_adapter_without_a_gate_refuses_gate_maps(base: Base) -> None:
    plain = Adapter.create(base.unet, base.image_encoder, {"lora_rank": 2}, method=METHODS["ip_adapter_faceid"])
    pipe = DynamicIDPipeline.from_base(base, plain)
    pipe.set_progress_bar_config(disable=True)
    common = {"identity_tokens": torch.randn(1, 4, 64), "num_inference_steps": 1, "output_type": "latent"}
    drawn = [
        pipe("a photo", **common, gate=gate, generator=torch.Generator().manual_seed(0)).images
        for gate in (True, False)
    ]
    assert torch.equal(*drawn)
    with pytest.raises(ValueError, match="no gate maps: an adapter of ip_adapter_faceid has no gate"):
        pipe("a photo", **common, return_gate_maps=True)
