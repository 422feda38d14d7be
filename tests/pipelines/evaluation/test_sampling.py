from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler

from model.inference.pipeline import DynamicIDPipeline
from pipelines.core.params import Params
from pipelines.evaluation.plan import PictureSpec
from pipelines.evaluation.sampling import CellRenderer, multi_person_settings

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


def test_settings_for_several_people_are_used_for_them_only(params: Params) -> None:
    settings = params.evaluate.model_copy(update={"steps": 20, "boost": 0.5, "boost_steps": 8, "layout_steps": 4})
    calls: list[dict[str, Any]] = []

    class Pipe:
        scheduler = DDIMScheduler()
        unet = SimpleNamespace(
            dtype=torch.float32, device=torch.device("cpu"), config=SimpleNamespace(in_channels=4, sample_size=8)
        )
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


def test_another_number_of_steps_keeps_their_share(params: Params) -> None:
    settings = params.evaluate.model_copy(update={"steps": 20, "boost_steps": 8, "layout_steps": 4})
    assert multi_person_settings(settings, 2, 50) == {"boost": settings.boost, "boost_steps": 20, "layout_steps": 10}
    assert multi_person_settings(settings, 3, 10)["layout_steps"] == 2
    assert not any(multi_person_settings(settings, 1, 50).values())
