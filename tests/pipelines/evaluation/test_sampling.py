from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from model.inference.pipeline import DynamicIDPipeline
from model.network.known_pictures import KnownPictures
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.sections.evaluation import SeveralPeople
from pipelines.evaluation.evaluate import drawable_people
from pipelines.evaluation.plan import PictureSpec
from pipelines.evaluation.sampling import CellRenderer, load_pipeline, multi_person_settings, other_base, picture_size

SPECS = [PictureSpec(prompt, noise, tokens=None) for prompt in ("a man in a red shirt", "a woman") for noise in (1, 2)]


def test_rescaling_takes_the_contrast_that_guidance_adds(params: Params, project: Path) -> None:
    """Compare the contrast of pixels with that of unguided pictures of the shipped base model."""
    weights = project / "model" / "foundation" / "weights"
    pipe = DynamicIDPipeline.from_folders(weights / "sd", weights / "image_encoder")

    def contrast(guidance: float, rescale: float) -> np.ndarray:
        changed = {"guidance": guidance, "guidance_rescale": rescale, "steps": 6, "batch_size": 4}
        renderer = CellRenderer(pipe, params.evaluate.model_copy(update=changed), 64)
        return np.array([drawn.image.std() for drawn in renderer.draw(SPECS)])

    plain = contrast(1.0, 0.0)
    off = [np.abs(contrast(9.0, rescale) - plain).mean() for rescale in (0.0, 0.5, 1.0)]
    assert off[0] > off[1] > off[2]


def test_a_sampler_that_adds_noise_draws_each_picture_the_same_in_any_batch(params: Params, project: Path) -> None:
    weights = project / "model" / "foundation" / "weights"
    pipe = DynamicIDPipeline.from_folders(weights / "sd", weights / "image_encoder")

    def drawn(sampler: str, batch: int) -> np.ndarray:
        changed = {"sampler": sampler, "steps": 3, "batch_size": batch}
        renderer = CellRenderer(pipe, params.evaluate.model_copy(update=changed), 64)
        return np.stack([one.image for one in renderer.draw(SPECS)]).astype(int)

    first = drawn("lcm", 4)
    assert np.array_equal(first, drawn("lcm", 4))
    assert np.abs(first - drawn("lcm", 1)).max() <= 1
    assert np.abs(first - drawn("ddim", 4)).max() > 5


def test_another_base_is_drawn_with_on_request_and_both_are_named(
    params: Params, adapter_folder: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, image_encoder, adapter = adapter_folder
    other = shutil.copytree(adapter, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    used, config["base"]["fingerprint"] = config["base"]["fingerprint"], "0" * 64
    (other / "config.json").write_text(json.dumps(config))
    base = params.base.model_copy(update={"pipeline": str(pipeline), "image_encoder": str(image_encoder)})
    with pytest.raises(UserError, match=r"fingerprint 000000000000.*base\.allow_other"):
        load_pipeline(params.model_copy(update={"base": base}), other)
    allowed = params.model_copy(update={"base": base.model_copy(update={"allow_other": True})})
    assert other_base(load_pipeline(allowed, other)) == {"base": "0" * 64, "base_drawn": used}
    assert f"trained on the base 000000000000, drawn with {pipeline}, {used[:12]}" in capsys.readouterr().err
    assert other_base(load_pipeline(allowed, adapter)) == {}


def test_settings_for_several_people_are_used_for_them_only(params: Params) -> None:
    settings = params.evaluate.model_copy(update={"steps": 20, "boost": 0.5, "boost_steps": 8, "layout_steps": 4})
    calls: list[dict[str, Any]] = []

    class Pipe:
        scheduler = DDIMScheduler()
        denoiser = SimpleNamespace(dtype=torch.float32, device=torch.device("cpu"))
        vae = SimpleNamespace(config=SimpleNamespace(latent_channels=4))
        vae_scale_factor = 8

        def set_progress_bar_config(self, **_: Any) -> None:
            """Nothing is shown."""

        def __call__(self, prompts: list[str], **arguments: Any) -> Any:
            calls.append(arguments)
            return SimpleNamespace(images=np.zeros((len(prompts), 64, 64, 3)), gate_maps=[None] * len(prompts))

    tokens = np.zeros((8, 16), np.float32)
    CellRenderer(Pipe(), settings, 64).draw(
        [
            PictureSpec("two people", 1, tokens=tokens, boxes=((0, 0, 1, 0.5), (0, 0.5, 1, 1))),
            PictureSpec("a man", 1, tokens=tokens[:4], boxes=((0, 0, 1, 1),)),
            PictureSpec("a man", 1, tokens=tokens[:4]),
        ]
    )
    several, boxed, single = ({name: call[name] for name in multi_person_settings(settings, 2)} for call in calls)
    assert several == {"boost": 0.5, "boost_steps": 8, "layout_steps": 4}
    assert boxed == single == {"boost": 0.0, "boost_steps": 0, "layout_steps": 0}


def test_pictures_of_several_people_have_the_size_that_the_base_knows(params: Params, tmp_path: Path) -> None:
    known = KnownPictures(tmp_path, {(64, 64): (1, 2), (128, 64): (3,)})
    assert [picture_size(64, people, known) for people in (1, 2, 3)] == [(64, 64), (64, 64), (128, 64)]
    assert picture_size(512, 3, None) == (512, 512)
    assert [picture_size(64, people, known, "windows") for people in (1, 2, 3)] == [(64, 64), (112, 64), (160, 64)]


def test_more_people_than_the_base_knows_are_not_measurable_and_said(params: Params, project: Path) -> None:
    asked = SeveralPeople(two=5, three=2, four=0)

    def drawable(layout: str) -> tuple[SeveralPeople, dict[int, str]]:
        changes = {"several_people": asked, "layout": layout}
        return drawable_people(params.model_copy(update={"evaluate": params.evaluate.model_copy(update=changes)}))

    several, beyond = drawable("regions")
    assert several == SeveralPeople(two=5, three=0, four=0)
    assert beyond == {3: "the base was trained on 2 in a picture at most (weights/manifest.json)"}
    assert drawable("windows") == (asked, {})


def test_another_number_of_steps_keeps_their_share(params: Params) -> None:
    settings = params.evaluate.model_copy(update={"steps": 20, "boost_steps": 8, "layout_steps": 4})
    assert multi_person_settings(settings, 2, 50) == {"boost": settings.boost, "boost_steps": 20, "layout_steps": 10}
    assert multi_person_settings(settings, 3, 10)["layout_steps"] == 2
    assert not any(multi_person_settings(settings, 1, 50).values())
