"""The pipeline of the method on FLUX.1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from diffusers import FluxPipeline
from diffusers.pipelines.flux import FluxPipelineOutput
from torch import Tensor

from model.inference.gate_maps import WithGateMaps
from model.inference.identity_pipeline import IdentityPipeline
from model.network.base import FLUX, Base
from model.network.identity_state import IdentityState
from model.network.joint_attention import PATCH
from model.network.text_encoding import cut_text, encode_joint_text, joint_text_length, tokenizing
from model.network.transformer_base import pack_latents

_NEGATIVE = ("negative_prompt", "negative_prompt_embeds")


@dataclass
class DynamicIDFluxPipelineOutput(WithGateMaps, FluxPipelineOutput):
    """`images` as in the parent, `gate_maps` and `heat_maps()`."""


class GuidedTransformer:
    """The transformer of one call with classifier-free guidance, which the loop calls twice in every step.

    The call for the prompt has the people, that for the negative prompt null tokens.
    """

    def __init__(self, model: Any, state: IdentityState, null_tokens: Tensor) -> None:
        self.model = model
        self._states = {"cond": state, "uncond": state.with_tokens(null_tokens)}
        self._now = state

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @contextmanager
    def cache_context(self, name: str) -> Iterator[None]:
        """Tell which of the two calls follows, as the loop tells diffusers' caches."""
        self._now, step = self._states[name], self._states["cond"].step
        self._now.step = step
        with self.model.cache_context(name):
            yield

    def __call__(self, *arguments: Any, joint_attention_kwargs: Any = None, **keywords: Any) -> Any:
        """Call the transformer with the identity state of this call."""
        own = {**(joint_attention_kwargs or {}), "identity": self._now}
        return self.model(*arguments, joint_attention_kwargs=own, **keywords)


class FluxPeople(IdentityPipeline):
    """People in a pipeline of FLUX.1."""

    transformer: Any
    family = FLUX
    flow_matching = True
    attention_kwargs = "joint_attention_kwargs"
    batched_guidance = False
    in_windows = False
    do_classifier_free_guidance = False

    @property
    def denoiser(self) -> Any:
        """The transformer."""
        return self.transformer

    @property
    def size_step(self) -> int:
        """Heights and widths are multiples of it, in pixels."""
        return PATCH * int(self.vae_scale_factor)

    def _prepared(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments.pop("guidance_rescale", None):
            raise ValueError("guidance_rescale: flow matching has none; set it to 0")
        embedded, scale = self.transformer.config.guidance_embeds, arguments.get("guidance_scale", 3.5)
        negative = any(arguments.get(name) is not None for name in _NEGATIVE)
        if "true_cfg_scale" not in arguments and not embedded and scale > 1:
            arguments["true_cfg_scale"] = scale
            if not negative:
                arguments["negative_prompt"] = ""
        elif negative and embedded and arguments.get("true_cfg_scale", 1) <= 1:
            raise ValueError(
                "negative_prompt: this transformer is guidance-distilled and reads none; leave it out, or give "
                "true_cfg_scale above 1, which takes twice the time"
            )
        return {"max_sequence_length": joint_text_length(self.tokenizer_2 or self.tokenizer), **arguments}

    def _guided(self, arguments: dict[str, Any]) -> bool:
        return arguments.get("true_cfg_scale", 1.0) > 1 and any(arguments.get(name) is not None for name in _NEGATIVE)

    def _default_latent(self) -> tuple[int, int]:
        return self.default_sample_size, self.default_sample_size

    def cut_from(self, prompt: str) -> str:
        """Return the end of `prompt` that the text states do not have; "" for none. The pooled text is of 77 tokens."""
        return cut_text(self.tokenizer_2 or self.tokenizer, prompt)

    @tokenizing
    def encode_prompt(  # noqa: PLR0917
        self,
        prompt: Any,
        prompt_2: Any = None,
        device: Any = None,
        num_images_per_prompt: int = 1,
        prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        max_sequence_length: int = 512,
        lora_scale: float | None = None,
    ) -> Any:
        """Encode the prompts as the base pipeline does; without a T5 encoder, the text states are those of CLIP."""
        if self.text_encoder_2 is None and prompt_embeds is None:
            texts = [prompt] if isinstance(prompt, str) else prompt
            prompt_embeds, pooled_prompt_embeds = (
                states.repeat_interleave(num_images_per_prompt, dim=0)
                for states in encode_joint_text(self._texts()[0], None, texts, device)
            )
        # The parent repeats only what it encodes itself.
        return super().encode_prompt(
            prompt,
            prompt_2,
            device,
            num_images_per_prompt,
            prompt_embeds,
            pooled_prompt_embeds,
            max_sequence_length,
            lora_scale,
        )

    def _loop(self, prompt: Any, arguments: dict[str, Any]) -> tuple[Any, Any]:
        arguments = dict(arguments)
        latents = arguments.get("latents")
        if latents is not None and latents.ndim == 4:
            arguments["latents"] = pack_latents(latents)
        state = (arguments.get(self.attention_kwargs) or {}).get("identity")
        if state is not None and self._guided(arguments):
            null = self._require_adapter().null_tokens.to(state.tokens)
            null = null.repeat(len(state.tokens), state.tokens.shape[1] // null.shape[1], 1)
            self.transformer = GuidedTransformer(self.transformer, state, null)
        texts = prompt if prompt is not None else arguments.get("prompt_embeds")
        if isinstance(arguments.get("negative_prompt"), str) and texts is not None and not isinstance(texts, str):
            arguments["negative_prompt"] = [arguments["negative_prompt"]] * len(texts)
        return super()._loop(prompt, arguments)

    def maybe_free_model_hooks(self) -> None:
        """Move the models to where they wait, as the parent does: the transformer itself, not that of a call."""
        if isinstance(self.transformer, GuidedTransformer):
            self.transformer = self.transformer.model
        super().maybe_free_model_hooks()

    def _output(self, images: Any, flagged: Any, gates: np.ndarray | None, return_dict: bool) -> Any:
        if not return_dict:
            return images, gates
        return DynamicIDFluxPipelineOutput(images=images, gate_maps=gates)


class DynamicIDFluxPipeline(FluxPeople, FluxPipeline):
    """Render given people with FLUX.1 (see IdentityPipeline).

    On a guidance-distilled transformer, `guidance_scale` is its input, as in the parent. On another one, it is that of
    classifier-free guidance (`true_cfg_scale`), with the empty text unless there is a negative prompt: give 1 for a
    base such as FLUX.1-schnell, which is distilled without guidance. Sizes are multiples of 16 pixels for FLUX.1.
    """

    _optional_components: ClassVar[list[str]] = [
        *FluxPipeline._optional_components,
        "text_encoder_2",
        "tokenizer_2",
        "crop_processor",
    ]

    def __init__(  # noqa: PLR0917
        self,
        scheduler: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        text_encoder_2: Any,
        tokenizer_2: Any,
        transformer: Any,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        crop_processor: Any = None,
    ) -> None:
        super().__init__(
            scheduler,
            vae,
            text_encoder,
            tokenizer,
            text_encoder_2,
            tokenizer_2,
            transformer,
            image_encoder,
            feature_extractor,
        )
        self.register_modules(crop_processor=crop_processor)
        self.default_sample_size = int(vae.config.sample_size) // self.vae_scale_factor

    @classmethod
    def _parts(cls, base: Base) -> dict[str, Any]:
        parts = super()._parts(base)
        parts["transformer"] = parts.pop("unet")
        return {**parts, "text_encoder_2": base.text_encoder_2, "tokenizer_2": base.tokenizer_2}
