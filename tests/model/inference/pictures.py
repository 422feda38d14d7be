"""Render small pictures with fixed seeds."""

from __future__ import annotations

from typing import Any

import torch

HALVES = [[0, 0, 1, 0.5], [0, 0.5, 1, 1]]


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, prompt: Any = "a photo of a person", faces: Any = None, *, seed: int = 0, **arguments: Any) -> Any:
    count = len(prompt) if isinstance(prompt, list) else 1
    count *= arguments.get("num_images_per_prompt", 1)
    generators = [torch.Generator().manual_seed(seed + row) for row in range(count)]
    settings = {"num_inference_steps": 3, "output_type": "np", "guidance_scale": 3.0, **arguments}
    given = {} if faces is None else {"faces": faces}
    return pipe(prompt, generator=generators, **given, **settings)
