"""The common part of the pipelines for all bases: people in a call of diffusers' own loop."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import Tensor

from model.face.conventions import OURS, Conventions
from model.face.face_parts import described
from model.inference.adapter_pipeline import AdapterPipeline
from model.inference.call_autoencoder import CallAutoencoder
from model.inference.gate_maps import GateMaps
from model.inference.identity_request import (
    FacePrompts,
    Faces,
    Motions,
    check_boxes,
    check_masks,
    check_scale,
    check_size,
    for_pictures,
    reference_counts,
)
from model.inference.identity_tokens import TokenMaker
from model.inference.part_fusion import PartFusion, fused_prompt, without_parts
from model.inference.person_windows import PersonWindows, person_windows
from model.inference.step_callback import advancing
from model.network.base import encode_crops
from model.network.crop_transform import CropTransform
from model.network.identity_state import IdentityState
from model.network.text_encoding import TextEncoder, cut_text, encode_text, tokenizing


class IdentityPipeline(AdapterPipeline):
    """Render given people, each from one reference, with the expression and pose of a face prompt.

    A mixin for pipelines of diffusers, whose denoising loop is used: `class X(IdentityPipeline, SomePipeline)`. The
    pipeline has an `adapter`, the CLIP `image_encoder` for face crops, and `crop_processor` with the parameters of that
    encoder's preprocessing (if None, those of `feature_extractor`). A call without faces uses the base model alone.
    Several threads may call one pipeline: calls store no state in it.
    """

    in_windows: ClassVar[bool] = True
    """Whether several people can be drawn in windows."""
    _fusion: PartFusion | None = None

    def tokens_of(
        self, faces: Faces, face_prompts: FacePrompts | None = None, motions: Motions | None = None
    ) -> Tensor:
        """Return identity tokens (B, K·P, D) of B pictures, K (the adapter's `tokens_per_person`) for each of P people.

        Those of a method with facial parts end with one vector for each part.
        `faces`: the people of one picture, or one such list per picture (all of one length), each a Face, a
        ReferenceSet of several of one person (K for each reference, where it concatenates them), or a Blend of two
        people. `face_prompts` in the same shape: None keeps the expression and pose of the reference; a text ("sad,
        slightly turned to the left") names one of seven expressions, one of five poses, or both; what it does not name
        is kept. `motions` in the same shape: what is asked of expression and pose beyond words, a TargetMotion or None.
        Raise ValueError for a text that names neither, for any text or motion if the adapter has no IMR, and if faces,
        texts and motions do not match.
        """
        adapter, device = self._require_adapter(), self._execution_device
        transform = self._crop_transform()

        def clip_states(crop: np.ndarray) -> Tensor:
            return encode_crops(self.image_encoder, transform, crop[None], device)

        def pooled_text(texts: Any) -> Tensor:
            return encode_text(self._texts(), texts, device)[1]

        adapter.encoders_to(device)
        tokens = TokenMaker(adapter, clip_states, pooled_text)(faces, face_prompts, motions)
        if getattr(self, "_all_hooks", None):
            # With offloading, only one model is on the device at a time; the adapter's networks must leave it, too.
            adapter.encoders_to(torch.device("cpu"))
        return tokens

    def _texts(self) -> tuple[TextEncoder, ...]:
        return ((self.tokenizer, self.text_encoder),)

    @tokenizing
    def cut_from(self, prompt: str) -> str:
        """Return the end of `prompt` that is too long for the text encoders, which do not see it; "" for none.

        The words that name facial parts take their place in the text, too.
        """
        if self.adapter is not None and self.adapter.method.facial_parts:
            prompt = described(self._texts()[0][0], prompt)
        return max((cut_text(tokenizer, prompt) for tokenizer, _ in self._texts()), key=len)

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        prompt: str | list[str] | None = None,
        faces: Faces | None = None,
        face_prompts: FacePrompts | None = None,
        boxes: Any = None,
        identity_tokens: Tensor | None = None,
        *,
        motions: Motions | None = None,
        masks: Any = None,
        gate: bool = True,
        gate_threshold: float | None = None,
        identity_scale: Any = 1.0,
        lora_scale: float = 1.0,
        layout_steps: int = 0,
        boost_steps: int = 0,
        boost: float = 0.0,
        return_gate_maps: bool = False,
        plain_steps: int | None = None,
        window_prompts: Any = None,
        **arguments: Any,
    ) -> Any:
        """Render one picture for each of B prompts (or `num_images_per_prompt` of each).

        - `faces`: the P people of every picture, or one list of people per prompt; `face_prompts` and `motions`
          likewise (see `tokens_of`). `identity_tokens` (B, K·P, D) or (1, K·P, D) replace all three.
        - `boxes` (P, 4) for all prompts or (B, P, 4): y0 x0 y1 x1 in [0, 1]; or `masks` (P, h, w) or (B, P, h, w) of
          any size, also a list of grey pictures. Without both: equal vertical slices.
        - `gate`: False for plain decoupled attention. `identity_scale` λ: a number, (P,) or (B, P).
        - `layout_steps`: the number of first steps without LoRA, in which the base model lays out several people.
        - `boost`: added to the gate inside the boxes in the first `boost_steps` steps (see IdentityState).
        - `plain_steps`: number of first steps in which words do not carry facial parts; None: as the adapter states.
          Parts are those of one person: with several in a picture, or with λ = 0, the text stays as it is.
        - `window_prompts`: one per person, from left to right, or such a list per prompt: everybody is drawn in a
          window of a picture that is wider than high (see person_windows.py), without `boxes` and `masks`.
        - `arguments`: those of the base pipeline. Without faces and tokens, the base model is used alone.

        Raise ValueError for arguments that do not fit together; the message states what to change.
        """
        arguments = self._prepared(arguments)
        check_size(arguments.get("height"), arguments.get("width"), self.size_step)
        embeds = arguments.get("prompt_embeds")
        prompts = len(embeds) if embeds is not None else 1 if isinstance(prompt, str) else len(prompt or ())
        copies = arguments.get("num_images_per_prompt") or 1
        if identity_tokens is None and faces is None:
            if any(x is not None for x in (face_prompts, motions, boxes, masks)) or return_gate_maps:
                raise ValueError("face_prompts, motions, boxes, masks, return_gate_maps need faces or identity_tokens")
            windows = person_windows(self, window_prompts, prompts, copies)
            return self._run(None, None, prompt, arguments, windows=windows)
        adapter = self._require_adapter()
        adapter.check_attached(self.denoiser)
        if return_gate_maps and not adapter.method.gate:
            raise ValueError(f"no gate maps: an adapter of {adapter.method.name} has no gate")
        if sum(given is not None for given in (boxes, masks, window_prompts)) > 1:
            raise ValueError("boxes, masks and window_prompts: give one of the three")
        references = None
        if identity_tokens is None:
            identity_tokens = self.tokens_of(faces, face_prompts, motions)  # type: ignore[arg-type]
            references = reference_counts(faces)  # type: ignore[arg-type]
        guided = self.batched_guidance and self._guided(arguments)
        tokens = for_pictures(identity_tokens, prompts, copies, "identity tokens")
        tokens = tokens.to(self._execution_device, self.denoiser.dtype)
        tokens, parts = without_parts(adapter, tokens)
        groups = tokens.shape[1] // adapter.sizes["tokens"]
        people = groups if references is None else len(references)
        fusion = None
        if parts is not None and people == 1 and not (isinstance(identity_scale, int | float) and identity_scale == 0):
            # Of several references beside each other, the text has the parts of the best one.
            best = parts[:, : parts.shape[1] // groups]
            prompt, fusion = fused_prompt(self, best, prompt, arguments, plain_steps)
        per_person = {
            "boxes": check_boxes(boxes, people, prompts, copies),
            "masks": check_masks(masks, people, prompts, copies),
            "scale": check_scale(identity_scale, people, prompts, copies),
        }
        if guided:
            null = adapter.null_tokens.to(tokens).repeat(len(tokens), groups, 1)
            tokens = torch.cat([null, tokens])
            per_person = {name: _for_both_halves(value, name) for name, value in per_person.items()}
        rows, columns = self._latent_size(arguments.get("height"), arguments.get("width"))
        maps = GateMaps(rows, columns, guided) if return_gate_maps else None
        state = IdentityState(
            tokens,
            gate=gate,
            threshold=gate_threshold,
            lora_scale=lora_scale,
            layout_steps=layout_steps,
            boost=boost,
            boost_steps=boost_steps,
            height=rows,
            width=columns,
            maps=None if maps is None else maps.pending,
            cache={},
            references=references,
            **per_person,
        )
        windows = person_windows(self, window_prompts, prompts, copies, people)
        return self._run(state, maps, prompt, arguments, fusion=fusion, windows=windows)

    @tokenizing
    def encode_prompt(self, *arguments: Any, **keywords: Any) -> Any:
        """Encode the prompts as the base pipeline does, and fuse facial parts into their words."""
        encoded = super().encode_prompt(*arguments, **keywords)  # type: ignore[misc]
        return encoded if self._fusion is None else (*self._fusion.texts(*encoded[:2]), *encoded[2:])

    def _prepared(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the base pipeline as it takes them."""
        return arguments

    def _guided(self, arguments: dict[str, Any]) -> bool:
        """Return whether the call has classifier-free guidance."""
        # Only whether the scale is above 1 matters, and the default scales of all base pipelines are.
        return arguments.get("guidance_scale", 7.5) > 1 and self.unet.config.time_cond_proj_dim is None

    def _default_latent(self) -> tuple[int, int]:
        size = self.unet.config.sample_size
        return (size, size) if isinstance(size, int) else size

    def _latent_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        if height and width:
            return height // self.vae_scale_factor, width // self.vae_scale_factor
        return self._default_latent()

    def _run(
        self,
        state: IdentityState | None,
        maps: GateMaps | None,
        prompt: Any,
        arguments: dict[str, Any],
        *,
        fusion: PartFusion | None = None,
        windows: PersonWindows | None = None,
    ) -> Any:
        arguments = dict(arguments)
        return_dict = arguments.pop("return_dict", True)
        if state is not None:
            given = arguments.get(self.attention_kwargs) or {}
            arguments[self.attention_kwargs] = {**given, "identity": state}
            callback = arguments.get("callback_on_step_end")
            if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
                arguments["callback_on_step_end_tensor_inputs"] = callback.tensor_inputs
            arguments["callback_on_step_end"] = advancing(state, maps, callback, fusion)
            if fusion is not None and fusion.waits:
                seen = arguments.get("callback_on_step_end_tensor_inputs") or ["latents"]
                arguments["callback_on_step_end_tensor_inputs"] = list(dict.fromkeys([*seen, "prompt_embeds"]))
        # The loop stores its arguments in the pipeline, and its step in the scheduler. Each call uses copies of both,
        # so that concurrent calls do not mix.
        own = copy.copy(self)
        own.scheduler = copy.deepcopy(self.scheduler)
        own._fusion = fusion
        stand_ins = self._stand_ins(state, maps) | ({} if windows is None else {"unet": windows})
        # Not as attributes: the pipeline would write them into the configuration that both share.
        own.__dict__.update(stand_ins)
        if windows is not None:
            # No window shows the prompt of the whole, which may be too long for a text encoder.
            prompt = prompt if prompt is None else windows.prompts
        found = own._loop(prompt, arguments)
        if hasattr(own, "_all_hooks"):
            # The loop has put hooks on what it had: not on what others stood in for.
            own.__dict__.update({name: self.__dict__[name] for name in stand_ins})
            own.maybe_free_model_hooks()
            self._all_hooks: Any = own._all_hooks
        return self._output(*found, None if maps is None else maps.mean(), return_dict)

    def _stand_ins(self, state: IdentityState | None, maps: GateMaps | None) -> dict[str, Any]:
        """Return what stands in for parts of the pipeline in one call."""
        del state, maps
        return {"vae": CallAutoencoder(self.vae)}

    def _loop(self, prompt: Any, arguments: dict[str, Any]) -> tuple[Any, Any]:
        """Return the pictures of the base pipeline's loop, and the flags of the safety checker."""
        images, *flagged = super().__call__(prompt, return_dict=False, **arguments)
        return images, flagged[0] if flagged else None

    def _output(self, images: Any, flagged: Any, gates: np.ndarray | None, return_dict: bool) -> Any:
        raise NotImplementedError

    @property
    def crop_size(self) -> int:
        """The side in pixels of the image encoder's input; crops of another size are resized."""
        return self._crop_transform().crop

    @property
    def conventions(self) -> Conventions:
        """How the adapter's inputs are prepared; this project's own without an adapter."""
        return OURS if self.adapter is None else self.adapter.conventions

    def _crop_transform(self) -> CropTransform:
        processor = getattr(self, "crop_processor", None) or self.feature_extractor
        if self.image_encoder is None or processor is None:
            raise ValueError(f"this pipeline has no image encoder: faces need one ({type(self).__name__}.from_folders)")
        if self.conventions.clip_pixels == "openai":
            return CropTransform.openai(int(self.image_encoder.config.image_size))
        return CropTransform.from_config(processor.to_dict(), "crop_processor")


def _for_both_halves(value: Any, name: str) -> Any:
    """Repeat a value that has rows per picture for the unconditional half; return values for all pictures unchanged."""
    per_picture = isinstance(value, Tensor) and value.ndim > 1 and (len(value) > 1 or name == "scale")
    return torch.cat([value, value]) if per_picture else value
