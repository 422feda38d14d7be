"""Drawing with pictures of facial parts in the words that name them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from model.face.face import Blend, Face
from model.face.face_parts import PARTS, described, part_places
from model.inference.pipeline import DynamicIDPipeline
from model.network.adapter import Adapter
from model.network.base import Base, empty_states
from model.network.methods import CONSISTENTID
from tests.model.inference.pictures import draw, quiet

SIZES = {"lora_rank": 2, "parts_width": 64, "parts_depth": 1}
PROMPT = "a photo"


@pytest.fixture
def pipe(base: Base) -> DynamicIDPipeline:
    torch.manual_seed(0)
    adapter = Adapter.create(base.unet, base.image_encoder, SIZES, method=CONSISTENTID)
    adapter.encode_null_tokens(empty_states(base.image_encoder))
    return quiet(DynamicIDPipeline.from_base(base, adapter))


def images(pipe: DynamicIDPipeline, **arguments: Any) -> np.ndarray:
    return draw(pipe, **arguments).images


def test_the_parts_of_a_face_are_behind_its_tokens(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    one, other = (pipe.tokens_of([face]) for face in faces[:2])
    assert one.shape == (1, 4 + len(PARTS), 64)
    assert not torch.allclose(one[:, 4:], other[:, 4:])
    moved = pipe.tokens_of([replace(faces[0], landmarks=faces[0].landmarks * 0.5)])
    assert torch.equal(moved[:, :4], one[:, :4])
    assert not torch.allclose(moved[:, 4:], one[:, 4:])
    both = pipe.tokens_of([Blend(faces[0], faces[1], 0.25)])
    torch.testing.assert_close(both, torch.lerp(one, other, 0.25))


def test_the_words_that_name_them_carry_the_parts(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    tokens = pipe.tokens_of(faces[:1])
    other = torch.cat([tokens[:, :4], tokens[:, 4:] + 1], dim=1)
    drawn = images(pipe, prompt=PROMPT, identity_tokens=tokens)
    assert np.array_equal(images(pipe, prompt=PROMPT, faces=faces[:1]), drawn)
    assert not np.allclose(images(pipe, prompt=PROMPT, identity_tokens=other), drawn)
    named = described(pipe.tokenizer, PROMPT)
    assert np.array_equal(images(pipe, prompt=named, identity_tokens=tokens), drawn)


def test_the_first_steps_can_be_without_them(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    """As many as the call says, or the adapter; with all of them, only the identity tokens count."""
    tokens = pipe.tokens_of(faces[:1])
    other = torch.cat([tokens[:, :4], tokens[:, 4:] + 1], dim=1)
    common: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 3}
    drawn = [images(pipe, **common, identity_tokens=tokens, plain_steps=steps) for steps in range(4)]
    for one, next_one in pairwise(drawn):
        assert not np.allclose(one, next_one)
    assert np.array_equal(images(pipe, **common, identity_tokens=other, plain_steps=3), drawn[3])
    seen: list[set[str]] = []
    watched = {"callback_on_step_end": lambda pipe, step, time, given: seen.append(set(given)) or {}}
    assert np.array_equal(images(pipe, **common, **watched, identity_tokens=tokens, plain_steps=1), drawn[1])
    assert seen == [{"latents", "prompt_embeds"}] * 3


def test_published_inference_fuses_nothing_into_the_negative_text(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    """At the words of the prompt; without guidance there is no negative text."""
    adapter = pipe.adapter
    common: dict[str, Any] = {"prompt": PROMPT, "faces": faces[:1], "num_inference_steps": 2}
    ours = {guidance: images(pipe, **common, guidance_scale=guidance) for guidance in (1.0, 5.0)}
    adapter.plain_steps = 1
    published = {guidance: images(pipe, **common, guidance_scale=guidance, plain_steps=0) for guidance in (1.0, 5.0)}
    assert np.array_equal(published[1.0], ours[1.0])
    assert not np.allclose(published[5.0], ours[5.0])
    assert not np.allclose(images(pipe, **common, guidance_scale=1.0), ours[1.0]), "one plain step"


def test_pictures_of_a_batch_are_those_drawn_alone(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    tokens = torch.cat([pipe.tokens_of([face]) for face in faces[:2]])
    prompts = [PROMPT, "the mouth of a person"]
    latents = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    together = images(pipe, prompt=prompts, identity_tokens=tokens, latents=latents, num_images_per_prompt=2)
    alone = [
        images(pipe, prompt=prompts[row // 2], identity_tokens=tokens[row // 2, None], latents=latents[row, None])
        for row in range(4)
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)


def test_without_identity_or_with_several_people_the_text_stays(
    pipe: DynamicIDPipeline, base: Base, faces: list[Face]
) -> None:
    plain = images(quiet(DynamicIDPipeline.from_base(base)), prompt=PROMPT)
    assert np.array_equal(images(pipe, prompt=PROMPT, faces=faces[:1], identity_scale=0, lora_scale=0), plain)
    tokens = pipe.tokens_of(faces[:2])
    changed = tokens.unflatten(1, (2, -1)).clone()
    changed[:, :, 4:] += 1
    drawn = [images(pipe, prompt=PROMPT, identity_tokens=one) for one in (tokens, changed.flatten(1, 2))]
    assert np.array_equal(*drawn)


def test_a_call_without_words_is_refused(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    tokens = pipe.tokens_of(faces[:1])
    with pytest.raises(ValueError, match="prompt_embeds: consistentid fuses facial parts into the words"):
        draw(pipe, prompt=None, prompt_embeds=torch.zeros(1, 77, 64), identity_tokens=tokens)
    with pytest.raises(ValueError, match=r"4 identity tokens: expected a multiple of 8, for each person 4 and 4"):
        draw(pipe, prompt=PROMPT, identity_tokens=tokens[:, :4])


def test_the_parts_are_found_in_the_frame_of_the_crop(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    ours = pipe.adapter.conventions
    pipe.adapter.conventions = ours.with_values({"crop": "photo"})
    with pytest.raises(ValueError, match=r"crop=photo, landmark_frame=aligned, .*in the frame of the crop"):
        pipe.tokens_of(faces[:1])
    pipe.adapter.conventions = ours.with_values(
        {"crop": "photo", "landmark_frame": "photo", "target_landmarks": "source"}
    )
    assert pipe.tokens_of(faces[:1]).shape == (1, 8, 64)


def test_what_is_cut_counts_the_words_of_parts(pipe: DynamicIDPipeline) -> None:
    long = "q" * 70
    assert pipe.cut_from(long).replace(" ", "").strip("q") == ""
    assert pipe.cut_from(long)
    assert not pipe.cut_from(PROMPT)
    assert -1 not in part_places(pipe.tokenizer, described(pipe.tokenizer, long))


def test_offloading_changes_nothing(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    pipe.adapter.plain_steps = 1
    expected = images(pipe, prompt=PROMPT, faces=faces[:1])
    pipe.enable_model_cpu_offload(device="cpu")
    np.testing.assert_allclose(images(pipe, prompt=PROMPT, faces=faces[:1]), expected, atol=1e-5)
