"""Load base models from folders, and encode text, crops and pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from model.foundation.random_models import RandomModels
from model.network.base import Base, fingerprint, load_base
from model.network.latents import scale_latents, unscale_latents


def smooth_pictures(count: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (count, 6, 6, 3), dtype=np.uint8)
    return np.stack([cv2.resize(x, (width, height), interpolation=cv2.INTER_CUBIC) for x in small])


def test_models_are_frozen(base: Base) -> None:
    for model in (base.vae, base.unet, base.text_encoder, base.image_encoder):
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert base.resolution == 64


def test_text_is_encoded(base: Base) -> None:
    states, pooled = base.encode_text(["happy", "sad, slightly turned to the left"])
    assert states.shape == (2, 77, 64)
    assert pooled.shape == (2, 64)
    assert not torch.allclose(pooled[0], pooled[1])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 97), (40, 40), (80, 120)])
def test_crops_are_preprocessed_as_by_clip(base: Base, random_models: RandomModels, height: int, width: int) -> None:
    crops = smooth_pictures(3, height, width)
    processor = CLIPImageProcessorPil.from_pretrained(random_models.image_encoder)
    expected = processor(list(crops), return_tensors="pt").pixel_values
    found = base.crop_transform(crops)
    # At most two of 255 grey levels: PIL rounds between its two passes.
    assert float((found - expected).abs().max()) <= 2 / 255 / min(base.crop_transform.std) + 1e-6
    assert base.encode_crops(crops).shape == (3, 17, 48)


def test_pictures_are_encoded_and_decoded(base: Base) -> None:
    pictures = smooth_pictures(2, 64, 64)
    latents = base.encode_images(pictures)
    assert latents.shape == (2, 4, 16, 16)
    plain = base.vae.encode(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mode()
    assert torch.allclose(latents, plain * base.vae.config.scaling_factor, atol=1e-5)
    decoded = base.decode_latents(latents)
    assert decoded.shape == (2, 64, 64, 3)
    assert decoded.dtype == np.uint8


def test_latent_statistics_are_respected(base: Base) -> None:
    base.vae.register_to_config(latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 3.0, 4.0])
    latents = torch.randn(2, 4, 8, 8)
    scaled = scale_latents(base.vae, latents)
    assert torch.allclose(scaled[:, 1], (latents[:, 1] - 0.2) / 2 * base.vae.config.scaling_factor, atol=1e-6)
    assert torch.allclose(unscale_latents(base.vae, scaled), latents, atol=1e-5)


def test_fingerprint_depends_on_the_weights_only(random_models: RandomModels, tmp_path: Path) -> None:
    copy = tmp_path / "sd"
    shutil.copytree(random_models.pipeline, copy)
    assert fingerprint(copy) == fingerprint(random_models.pipeline)
    (copy / "README.md").write_text("anything", encoding="utf-8")
    assert fingerprint(copy) == fingerprint(random_models.pipeline)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert fingerprint(copy) != fingerprint(random_models.pipeline)


def test_missing_folders_are_named(random_models: RandomModels, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no such folder; expected a Stable Diffusion"):
        load_base(tmp_path / "nowhere", random_models.image_encoder)
    broken = tmp_path / "sd"
    shutil.copytree(random_models.pipeline, broken)
    shutil.rmtree(broken / "vae")
    with pytest.raises(ValueError, match="vae missing"):
        load_base(broken, random_models.image_encoder)
    with pytest.raises(ValueError, match=r"preprocessor_config\.json missing"):
        load_base(random_models.pipeline, random_models.pipeline / "text_encoder")
    shutil.copytree(random_models.pipeline / "vae", broken / "vae")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"unet: not a UNet2DConditionModel") as error:
        load_base(broken, random_models.image_encoder)
    assert "\n" not in str(error.value)
