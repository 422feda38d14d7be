"""Diffusers loads the export and draws the pictures of the adapter with all other parts off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from model.checkpoints.ip_adapter_export import write_ip_adapter
from model.checkpoints.published import read_adapter
from model.checkpoints.published_files import CheckpointError
from model.foundation.random_models import RandomModels
from model.inference.pipeline import DynamicIDPipeline
from model.network.adapter import Adapter
from model.network.base import Base, BaseReference

REFERENCE = BaseReference("sd", "clip", "0" * 64)
STEPS = {"num_inference_steps": 3, "output_type": "np", "height": 64, "width": 64}


@pytest.fixture
def adapter(base: Base, make_adapter: Callable[..., Adapter]) -> Adapter:
    adapter = make_adapter(base)
    for processor in adapter.processors:
        if hasattr(processor, "to_k_ip"):
            torch.nn.init.normal_(processor.to_k_ip.weight, std=0.2)
            torch.nn.init.normal_(processor.to_v_ip.weight, std=0.2)
    return adapter


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_diffusers_loads_the_export_and_draws(
    adapter: Adapter, base: Base, random_models: RandomModels, tmp_path: Path, guidance: float
) -> None:
    """With guidance, the unconditional half gets the embedding and states of this adapter's null tokens."""
    embedding, crop_states = torch.randn(1, 512), torch.randn(1, 17, 48)
    null_embedding, empty_states = torch.zeros(1, 512), torch.randn(1, 17, 48)
    with torch.no_grad():
        adapter.null_tokens.copy_(adapter.identity_tokens(null_embedding, empty_states))
        tokens = adapter.identity_tokens(embedding, crop_states)
    adapter.save(tmp_path / "adapter", REFERENCE)
    config, state = read_adapter(tmp_path / "adapter", random_models.pipeline / "unet")
    write_ip_adapter(config, state, tmp_path / "ip.safetensors")

    theirs = StableDiffusionPipeline.from_pretrained(random_models.pipeline, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)

    def draw() -> np.ndarray:
        generator = torch.Generator().manual_seed(3)
        faces = torch.stack([null_embedding, embedding] if guidance > 1 else [embedding])
        if theirs.unet.encoder_hid_proj is None:
            return theirs("a photo", guidance_scale=guidance, generator=generator, **STEPS).images
        projection = theirs.unet.encoder_hid_proj.image_projection_layers[0]
        states = torch.cat([empty_states, crop_states] if guidance > 1 else [crop_states])
        projection.clip_embeds = states[:, None]
        return theirs(
            "a photo", ip_adapter_image_embeds=[faces], guidance_scale=guidance, generator=generator, **STEPS
        ).images

    without = draw()
    theirs.load_ip_adapter(
        str(tmp_path), subfolder="", weight_name="ip.safetensors", image_encoder_folder=None, local_files_only=True
    )
    found = draw()
    ours = DynamicIDPipeline.from_base(base, adapter)
    ours.set_progress_bar_config(disable=True)
    expected = ours(
        "a photo",
        identity_tokens=tokens,
        gate=False,
        lora_scale=0.0,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(3),
        **STEPS,
    ).images
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(found - without).max() > 1e-2, "the identity must make a difference"


def test_what_diffusers_cannot_build_is_refused(
    base: Base, random_models: RandomModels, make_adapter: Callable[..., Adapter], tmp_path: Path
) -> None:
    sizes = {**make_adapter(base).sizes, "tokens": 8}
    Adapter.create(base.unet, base.image_encoder, sizes).save(tmp_path, REFERENCE)
    config, state = read_adapter(tmp_path, random_models.pipeline / "unet")
    with pytest.raises(CheckpointError, match="8 tokens and 4 layers"):
        write_ip_adapter(config, state, tmp_path / "ip.safetensors")
    assert not (tmp_path / "ip.safetensors").exists()
