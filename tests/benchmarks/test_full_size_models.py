"""The random models have the published sizes, without allocating weights; the settings of the line fit the profile."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from benchmarks.full_size import settings
from benchmarks.full_size_models import TEXT, UNET, VAE, VISION
from pipelines.core.params import load_params


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameters_are_as_many_as_published() -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"):
        assert count(UNet2DConditionModel(**UNET)) == 859_520_964
        assert count(AutoencoderKL(**VAE)) == 83_653_863
        assert count(CLIPTextModel(CLIPTextConfig(**TEXT))) == 123_060_480
        assert count(CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION))) == 632_076_800


def test_the_settings_of_the_whole_line_fit_the_profile(project: Path) -> None:
    changes = [f"{key}={json.dumps(value)}" for key, value in settings(256, 1).items()]
    found = load_params(project / "profiles" / "sd15.yaml", changes)
    assert (found.base.resolution, found.preprocess.insightface_name) == (256, "buffalo_real_mini")
    assert found.evaluate.judges.expression[0].path != found.preprocess.expression.networks[0].path
