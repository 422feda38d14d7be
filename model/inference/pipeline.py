"""The pipelines of the method: DynamicIDPipeline on Stable Diffusion 1.x and 2.x, DynamicIDXLPipeline on XL.

That of FLUX.1 is in flux_pipeline.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from diffusers.pipelines.stable_diffusion_xl import StableDiffusionXLPipelineOutput

from model.inference.flux_pipeline import DynamicIDFluxPipeline
from model.inference.gate_maps import WithGateMaps
from model.inference.identity_pipeline import IdentityPipeline
from model.network.base import FLUX, SDXL, Base, class_in, family_of, read_index
from model.network.text_encoding import TextEncoder


@dataclass
class DynamicIDPipelineOutput(WithGateMaps, StableDiffusionPipelineOutput):
    """`images` and `nsfw_content_detected` as in the parent, `gate_maps` and `heat_maps()`."""


@dataclass
class DynamicIDXLPipelineOutput(WithGateMaps, StableDiffusionXLPipelineOutput):
    """`images` as in the parent, `gate_maps` and `heat_maps()`."""


class StableDiffusionPeople(IdentityPipeline):
    """People in a pipeline of Stable Diffusion 1.x or 2.x."""

    def _output(self, images: Any, flagged: Any, gates: np.ndarray | None, return_dict: bool) -> Any:
        if not return_dict:
            return images, flagged, gates
        return DynamicIDPipelineOutput(images=images, nsfw_content_detected=flagged, gate_maps=gates)


class XLPeople(IdentityPipeline):
    """People in a pipeline of Stable Diffusion XL."""

    family = SDXL

    def _texts(self) -> tuple[TextEncoder, ...]:
        return ((self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2))

    def _output(self, images: Any, flagged: Any, gates: np.ndarray | None, return_dict: bool) -> Any:
        if not return_dict:
            return images, gates
        return DynamicIDXLPipelineOutput(images=images, gate_maps=gates)


class DynamicIDPipeline(StableDiffusionPeople, StableDiffusionPipeline):
    """Render given people with Stable Diffusion 1.x or 2.x (see IdentityPipeline)."""

    _optional_components: ClassVar[list[str]] = [*StableDiffusionPipeline._optional_components, "crop_processor"]

    def __init__(  # noqa: PLR0917
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        safety_checker: Any,
        feature_extractor: Any,
        image_encoder: Any = None,
        requires_safety_checker: bool = True,
        crop_processor: Any = None,
    ) -> None:
        super().__init__(
            vae,
            text_encoder,
            tokenizer,
            unet,
            scheduler,
            safety_checker,
            feature_extractor,
            image_encoder,
            requires_safety_checker,
        )
        self.register_modules(crop_processor=crop_processor)

    @classmethod
    def _parts(cls, base: Base) -> dict[str, Any]:
        checker, extractor = _safety(base)
        return {
            **super()._parts(base),
            "safety_checker": checker,
            "feature_extractor": extractor,
            "requires_safety_checker": checker is not None,
        }


class DynamicIDXLPipeline(XLPeople, StableDiffusionXLPipeline):
    """Render given people with Stable Diffusion XL (see IdentityPipeline)."""

    _optional_components: ClassVar[list[str]] = [*StableDiffusionXLPipeline._optional_components, "crop_processor"]

    def __init__(  # noqa: PLR0917
        self,
        vae: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        unet: Any,
        scheduler: Any,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
        crop_processor: Any = None,
    ) -> None:
        super().__init__(
            vae,
            text_encoder,
            text_encoder_2,
            tokenizer,
            tokenizer_2,
            unet,
            scheduler,
            image_encoder,
            feature_extractor,
            force_zeros_for_empty_prompt,
            add_watermarker,
        )
        self.register_modules(crop_processor=crop_processor)

    @classmethod
    def _parts(cls, base: Base) -> dict[str, Any]:
        index = read_index(base.pipeline_folder)
        return {
            **super()._parts(base),
            "text_encoder_2": base.text_encoder_2,
            "tokenizer_2": base.tokenizer_2,
            "force_zeros_for_empty_prompt": index.get("force_zeros_for_empty_prompt", True),
        }


def pipeline_class(folder: Path) -> type[IdentityPipeline]:
    """Return the pipeline class for the folder of a base; raise ValueError as `read_index` does."""
    return {SDXL: DynamicIDXLPipeline, FLUX: DynamicIDFluxPipeline}.get(family_of(folder), DynamicIDPipeline)


def _safety(base: Base) -> tuple[Any, Any]:
    """Return the safety checker and its image processor, or None and None if the base has none."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = base.pipeline_folder
    if class_in(read_index(folder), "safety_checker") is None:
        return None, None
    for part in ("safety_checker", "feature_extractor"):
        if not (folder / part).is_dir():
            raise ValueError(f"{folder / part}: no such folder, but model_index.json names a safety checker")
    checker = StableDiffusionSafetyChecker.from_pretrained(
        folder / "safety_checker", local_files_only=True, torch_dtype=base.dtype
    )
    extractor = CLIPImageProcessorPil.from_pretrained(folder / "feature_extractor", local_files_only=True)
    return checker.to(base.device).eval().requires_grad_(False), extractor
