"""The random models have the published sizes; this is checked without allocating weights."""

from __future__ import annotations

import torch

from benchmarks.full_size_models import TEXT, UNET, VAE, VISION


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
