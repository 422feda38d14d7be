"""Save the generative networks in their real layouts: a Stable Diffusion pipeline, CLIP and CLIP's image encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.foundation.random_models import save_flux, save_preprocessor, save_stable_diffusion
from model.foundation.transformer import scheduler as transformer_scheduler
from model.foundation.unet import scheduler


def save_clip(clip: Any, tokenizer: Any, weights: Path) -> None:
    """Save `clip/` (for the text judge) and its image part as `image_encoder/`, both in half precision."""
    from transformers import CLIPVisionModelWithProjection

    clip = clip.half()
    clip.save_pretrained(weights / "clip", safe_serialization=True)
    tokenizer.save_pretrained(weights / "clip")
    size = clip.config.vision_config.image_size
    save_preprocessor(weights / "clip", size)
    vision = CLIPVisionModelWithProjection(clip.config.vision_config).half()
    vision.vision_model.load_state_dict(clip.vision_model.state_dict())
    vision.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    vision.save_pretrained(weights / "image_encoder", safe_serialization=True)
    save_preprocessor(weights / "image_encoder", size)


def text_encoder_of(clip: Any) -> Any:
    """Return the text part of a CLIPModel as Stable Diffusion's CLIPTextModel."""
    from transformers import CLIPTextModel

    text = CLIPTextModel(clip.config.text_config).to(clip.dtype)
    missing, unexpected = text.load_state_dict(
        {
            key if key in text.state_dict() else f"text_model.{key}": value
            for key, value in clip.text_model.state_dict().items()
        },
        strict=False,
    )
    if missing or unexpected:
        raise ValueError(f"text part of CLIP: missing {missing}, unexpected {unexpected}")
    return text.eval()


def save_pipeline(vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, weights: Path) -> None:
    """Save `sd/`, a Stable Diffusion pipeline, in half precision."""
    save_stable_diffusion(
        weights / "sd",
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=scheduler(),
    )
    remove_origin(weights / "sd")


def save_flux_pipeline(vae: Any, text_encoder: Any, tokenizer: Any, transformer: Any, weights: Path) -> None:
    """Save `flux/`, a Flux pipeline whose texts are those of CLIP alone, in half precision."""
    save_flux(
        weights / "flux",
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        transformer=transformer.half(),
        scheduler=transformer_scheduler(),
    )
    remove_origin(weights / "flux")


def remove_origin(folder: Path) -> None:
    """Remove from every configuration under `folder` the path that the network was loaded from."""
    for file in sorted(folder.rglob("*.json")):
        config = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
