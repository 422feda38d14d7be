"""The generative networks train on a small set of people, and save in the layouts that the real ones have."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from model.foundation import clip as clip_module
from model.foundation import unet as unet_module
from model.foundation import vae as vae_module
from model.foundation.assemble import save_clip, save_pipeline, text_encoder_of
from model.foundation.clip import contrastive, words_of
from model.foundation.people import People, render_people
from model.foundation.pictures import face_weight
from model.foundation.tokenizer import learn_tokenizer
from pipelines.data.synthetic.foundation_people import draw


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    folder = tmp_path_factory.mktemp("foundation")
    return render_people(folder / "people", draw, people=5, photos=7, size=64, workers=1, groups=0.3)


def test_face_cells_are_weighted_up() -> None:
    weight = face_weight(np.array([[0.25, 0.5, 0.75, 1.0]]), 4, 3.0)[0, 0]
    assert weight.tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 3, 3, 1], [1, 3, 3, 1]]


def test_contrastive_loss_takes_equal_texts_as_positives() -> None:
    features = torch.eye(4)[[0, 0, 2, 3]]
    keys = ["a", "a", "b", "c"]
    # Two of four rows have two positives each, which no feature can tell apart: log 2 for those, 0 for the others.
    found = contrastive(features, features, keys, torch.tensor(50.0))
    assert float(found) == pytest.approx(0.5 * np.log(2), abs=1e-3)
    assert contrastive(features, features.roll(1, 0), keys, torch.tensor(50.0)) > 5


def test_prompts_are_read_into_colours_and_places() -> None:
    words = words_of(
        ("a photo of a man wearing an orange hoodie, on a beach", "a woman in a red shirt, red background")
    )
    assert words.colours == ("orange", "red")
    assert words.settings == ("on a beach", "red background")


def test_the_decoder_goes_on_alone_and_latents_stay_what_they_are(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae_module, "BATCH", 8)
    before, _ = vae_module.train(people, tmp_path / "before", steps=2)
    after, _ = vae_module.train(people, tmp_path / "after", steps=2, decoder_steps=2)
    assert after.config.scaling_factor == before.config.scaling_factor
    changed = {
        name.split(".")[0]
        for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True)
        if not torch.equal(old, new)
    }
    assert changed == {"decoder", "post_quant_conv"}


def test_all_three_train_and_load_as_a_stable_diffusion_pipeline(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_module, "BATCH", 4)
    monkeypatch.setattr(vae_module, "BATCH", 8)
    monkeypatch.setattr(unet_module, "BATCH", 6)
    tokenizer = learn_tokenizer([*people.prompts, *people.face_prompts])
    vae, figures = vae_module.train(people, tmp_path / "vae", steps=3)
    assert vae.config.scaling_factor == pytest.approx(1 / figures["latent_std"])
    clip, read = clip_module.train(people, tokenizer, tmp_path / "clip", steps=3)
    assert 0 <= read["zero_shot_expression"] <= 1
    text = text_encoder_of(clip)
    unet = unet_module.train(people, vae, text, tokenizer, tmp_path / "unet", steps=3)
    weights = tmp_path / "weights"
    save_clip(copy.deepcopy(clip), tokenizer, weights)
    save_pipeline(vae, text, tokenizer, unet, weights)

    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(weights / "sd", local_files_only=True, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a photo of a person", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert image.size == (64, 64)

    from model.network.base import load_base

    base = load_base(weights / "sd", weights / "image_encoder")
    assert base.encode_crops(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 65, clip_module.WIDTH)
