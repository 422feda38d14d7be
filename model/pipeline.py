"""DynamicIDPipeline: Stable Diffusion that also takes faces and face prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from torch import Tensor

from model.adapter import Adapter
from model.attention import IdentityState
from model.base import Base, BaseReference, encode_crops, encode_text, fingerprint, load_base, unscale_latents
from model.crop_transform import CropTransform
from model.face import Face
from model.face_geometry import landmark_picture
from model.face_prompts import compose
from model.gate_maps import GateMaps
from model.identity_request import FacePrompts, Faces, check_boxes, for_pictures, per_picture, wished
from model.templates import retarget

_ADAPTER_FOLDER = "adapter"


@dataclass
class DynamicIDPipelineOutput(StableDiffusionPipelineOutput):
    """`images` and `nsfw_content_detected` as in the parent, and `gate_maps` (B, h, w) of the latent's size.

    A gate map, float32 in [0, 1], is the mean of the gates (before any boost) of all cross-attentions and denoising
    steps; None where none was asked for.
    """

    gate_maps: np.ndarray | None = None


class DynamicIDPipeline(StableDiffusionPipeline):
    """Draws given people, each from one reference, with the expression and pose that a face prompt asks for.

    A Stable Diffusion pipeline with an `adapter` and the CLIP `image_encoder` that looks at face crops;
    `feature_extractor` holds the parameters of that encoder's preprocessing. Called without faces, it is exactly the
    base model. `save_pretrained` and `from_pretrained` include the adapter.
    """

    adapter: Adapter | None = None

    @classmethod
    def from_base(cls, base: Base, adapter: Adapter | None = None) -> DynamicIDPipeline:
        """Build a pipeline out of loaded base models, with an adapter where one is given."""
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        pipe = cls(
            vae=base.vae,
            text_encoder=base.text_encoder,
            tokenizer=base.tokenizer,
            unet=base.unet,
            scheduler=base.scheduler,
            safety_checker=None,
            feature_extractor=CLIPImageProcessorPil(**base.crop_transform.config()),
            image_encoder=base.image_encoder,
            requires_safety_checker=False,
        )
        if adapter is not None:
            pipe.set_adapter(adapter)
        return pipe

    @classmethod
    def from_folders(
        cls,
        pipeline: Path,
        image_encoder: Path,
        adapter: Path | None = None,
        *,
        dtype: torch.dtype | str = torch.float32,
        device: str | torch.device = "cpu",
    ) -> DynamicIDPipeline:
        """Load base and adapter from three folders; ValueError where the adapter was trained on other weights."""
        base = load_base(pipeline, image_encoder, dtype=dtype, device=device)
        pipe = cls.from_base(base)
        if adapter is not None:
            pipe.load_adapter(adapter)
            reference = pipe.adapter.base_reference  # type: ignore[union-attr]
            found = base.fingerprint()
            if reference is not None and reference.fingerprint != found:
                raise ValueError(
                    f"{adapter}: trained on {reference.pipeline} with fingerprint {reference.fingerprint[:12]}, but "
                    f"{pipeline} and {image_encoder} have {found[:12]}; give the base it was trained on"
                )
        return pipe

    def set_adapter(self, adapter: Adapter) -> None:
        """Attach an adapter, in place of any other."""
        self.unload_adapter()
        adapter.to(self.unet.device, self.unet.dtype).eval()
        adapter.attach(self.unet)
        self.adapter = adapter

    def load_adapter(self, folder: Path) -> None:  # type: ignore[override]
        """Read an adapter folder and attach it, in place of any other; ValueError where it does not fit."""
        self.unload_adapter()
        self.set_adapter(Adapter.load(Path(folder), self.unet))

    def unload_adapter(self) -> None:
        """Take the adapter off; the pipeline is the base model again, bit for bit."""
        if self.adapter is not None:
            self.adapter.detach(self.unet)
            self.adapter = None

    def fold_lora(self, scale: float = 1.0) -> None:
        """Put the adapter's LoRA into the UNet's weights: calls with `lora_scale` = `scale` cost no more than the base.

        Other calls give what they gave before up to rounding, the base model without faces too, and cost a little more.
        """
        self._require_adapter().fold(self.unet, scale)

    def unfold_lora(self) -> None:
        """Give the UNet its own weights back, bit for bit."""
        self._require_adapter().unfold()

    def to(self, *arguments: Any, **keywords: Any) -> DynamicIDPipeline:
        """Move every component, the adapter too."""
        super().to(*arguments, **keywords)
        if self.adapter is not None:
            self.adapter.to(self.unet.device, self.unet.dtype)
        return self

    def save_pretrained(self, save_directory: str | Path, *arguments: Any, **keywords: Any) -> None:
        """Write the pipeline as diffusers does, and the adapter in a folder of its own beside the components."""
        adapter = self.adapter
        folded = 0.0 if adapter is None else adapter.folded
        if adapter is not None:
            # Attached processors are modules of the UNet: its weight file would hold them too.
            adapter.detach(self.unet)
        try:
            super().save_pretrained(save_directory, *arguments, **keywords)
        finally:
            if adapter is not None:
                adapter.attach(self.unet)
                adapter.fold(self.unet, folded)
        if adapter is not None:
            folder = Path(save_directory)
            own = BaseReference("..", "../image_encoder", fingerprint(folder))
            adapter.save(folder / _ADAPTER_FOLDER, adapter.base_reference or own)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **keywords: Any) -> DynamicIDPipeline:
        """Read what `save_pretrained` wrote, or any Stable Diffusion folder (then without adapter); never a hub."""
        if not Path(folder).is_dir():
            raise ValueError(f"{folder}: no such folder; expected a saved pipeline")
        pipe = super().from_pretrained(folder, **{**keywords, "local_files_only": True})
        if (Path(folder) / _ADAPTER_FOLDER).is_dir():
            pipe.load_adapter(Path(folder) / _ADAPTER_FOLDER)
        return pipe

    @torch.no_grad()
    def tokens_of(self, faces: Faces, face_prompts: FacePrompts | None = None) -> Tensor:
        """Return identity tokens (B, 4·P, D).

        `faces`: the P people of one picture, or one such list per picture (all of one length). `face_prompts` in the
        same shape: None keeps a reference's own expression and pose; a text ("sad, slightly turned to the left") is
        read into one of seven expressions and five poses, and what it leaves open stays as in the reference. Raises
        ValueError for a text that names neither, and where the adapter has no IMR.
        """
        adapter = self._require_adapter()
        pictures = per_picture(faces, "faces")
        prompts = [[None] * len(people) for people in pictures]
        if face_prompts is not None:
            prompts = per_picture(face_prompts, "face_prompts")  # type: ignore[assignment]
            if [len(x) for x in prompts] != [len(x) for x in pictures]:
                raise ValueError(
                    f"face prompts for {[len(x) for x in prompts]} people, faces of {[len(x) for x in pictures]}: "
                    "expected one face prompt a person (None keeps the reference's own)"
                )
        everyone: list[Face] = [face for people in pictures for face in people]
        wishes = [text for texts in prompts for text in texts]
        transform = self._crop_transform()
        device = self._execution_device
        adapter.to(device)
        # A crop looked at once serves every picture it is in.
        unique = {id(face): face for face in everyone}
        row = {key: index for index, key in enumerate(unique)}
        states = torch.cat(
            [encode_crops(self.image_encoder, transform, face.crop[None]).to(device) for face in unique.values()]
        )
        embeddings = torch.from_numpy(np.stack([face.embedding for face in unique.values()])).to(device)
        tokens = adapter.identity_tokens(embeddings, states)[[row[id(face)] for face in everyone]]
        asked = [index for index, text in enumerate(wishes) if text is not None]
        if asked:
            people = [everyone[index] for index in asked]
            tokens[asked] = self._reconfigured(adapter, tokens[asked], people, [str(wishes[index]) for index in asked])
        return tokens.unflatten(0, (len(pictures), -1)).flatten(1, 2)

    def _reconfigured(self, adapter: Adapter, tokens: Tensor, faces: list[Face], texts: list[str]) -> Tensor:
        """Give every row of tokens the motion that its text asks for."""
        if adapter.templates is None:
            raise ValueError("a face prompt needs an adapter with an IMR and landmark templates (stage train_imr)")
        bank = adapter.templates.float().cpu().numpy()
        sources, targets, source_texts, target_texts = [], [], [], []
        for face, text in zip(faces, texts, strict=True):
            expression, pose = wished(text, face)
            shape = retarget(bank, face.landmarks, face.expression, face.pose, expression, pose)
            sources.append(landmark_picture(face.landmarks))
            targets.append(landmark_picture(shape))
            source_texts.append(compose(face.expression, face.pose))
            target_texts.append(compose(expression, pose))
        _, pooled = encode_text(self.text_encoder, self.tokenizer, source_texts + target_texts)
        source_text, target_text = pooled.to(tokens.device).chunk(2)
        pictures = [torch.from_numpy(np.stack(x)).to(tokens.device) for x in (sources, targets)]
        return adapter.reconfigure(tokens, pictures[0], source_text, pictures[1], target_text)

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        prompt: str | list[str] | None = None,
        faces: Faces | None = None,
        face_prompts: FacePrompts | None = None,
        boxes: Any = None,
        identity_tokens: Tensor | None = None,
        *,
        gate: bool = True,
        gate_threshold: float | None = None,
        identity_scale: Any = 1.0,
        lora_scale: float = 1.0,
        boost_steps: int = 0,
        boost: float = 0.0,
        return_gate_maps: bool = False,
        **arguments: Any,
    ) -> Any:
        """Draw one picture for every prompt (`num_images_per_prompt` of each).

        `faces`: the people of the picture, or with several prompts also one list of people per prompt; `face_prompts`
        likewise (see `tokens_of`). `identity_tokens` (B, 4·P, D) or (1, 4·P, D) given directly win over both. `boxes`
        (P, 4) for all pictures or (B, P, 4): y0 x0 y1 x1 in [0, 1], None for equal vertical slices. `gate` False draws
        with plain decoupled attention. `identity_scale` λ, a number or (P,); `boost` is added to the gate inside the
        boxes for the first `boost_steps` steps. The rest are the arguments of StableDiffusionPipeline. Without faces
        and tokens the base model draws alone.
        """
        if identity_tokens is None and faces is None:
            if face_prompts is not None or boxes is not None or return_gate_maps:
                raise ValueError("face_prompts, boxes and return_gate_maps need faces or identity_tokens")
            return self._draw(None, None, prompt, arguments)
        adapter = self._require_adapter()
        if identity_tokens is None:
            identity_tokens = self.tokens_of(faces, face_prompts)  # type: ignore[arg-type]
        embeds = arguments.get("prompt_embeds")
        prompts = len(embeds) if embeds is not None else 1 if isinstance(prompt, str) else len(prompt or ())
        copies = arguments.get("num_images_per_prompt") or 1
        guided = arguments.get("guidance_scale", 7.5) > 1 and self.unet.config.time_cond_proj_dim is None
        tokens = for_pictures(identity_tokens, prompts, copies, "identity tokens")
        tokens = tokens.to(self._execution_device, self.unet.dtype)
        people = tokens.shape[1] // adapter.sizes["tokens"]
        boxes = check_boxes(boxes, people, prompts, copies)
        if guided:
            null = adapter.null_tokens.to(tokens).repeat(len(tokens), people, 1)
            tokens = torch.cat([null, tokens])
            boxes = boxes.repeat(2, 1, 1) if boxes is not None and len(boxes) > 1 else boxes
        scale = self.vae_scale_factor
        size = self.unet.config.sample_size
        rows, columns = (size, size) if isinstance(size, int) else size
        if arguments.get("height") and arguments.get("width"):
            rows, columns = arguments["height"] // scale, arguments["width"] // scale
        maps = GateMaps(rows, columns, guided) if return_gate_maps else None
        state = IdentityState(
            tokens,
            boxes=boxes,
            gate=gate,
            threshold=gate_threshold,
            scale=identity_scale,
            lora_scale=lora_scale,
            boost=boost,
            boost_steps=boost_steps,
            height=rows,
            width=columns,
            maps=None if maps is None else maps.pending,
            cache={},
        )
        return self._draw(state, maps, prompt, arguments)

    def _draw(
        self, state: IdentityState | None, maps: GateMaps | None, prompt: Any, arguments: dict[str, Any]
    ) -> DynamicIDPipelineOutput | tuple[Any, ...]:
        arguments = dict(arguments)
        output_type = arguments.pop("output_type", "pil")
        return_dict = arguments.pop("return_dict", True)
        if state is not None:
            arguments["cross_attention_kwargs"] = {**(arguments.get("cross_attention_kwargs") or {}), "identity": state}
            callback = arguments.get("callback_on_step_end")
            if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
                arguments["callback_on_step_end_tensor_inputs"] = callback.tensor_inputs
            arguments["callback_on_step_end"] = _advancing(state, maps, callback)
        # The parent decodes with the scaling factor alone; an autoencoder may also have statistics per channel.
        latents = super().__call__(prompt, output_type="latent", return_dict=False, **arguments)[0]
        images, flagged = latents, None
        if output_type != "latent":
            generator = arguments.get("generator")
            pixels = self.vae.decode(unscale_latents(self.vae, latents), return_dict=False, generator=generator)[0]
            pixels, flagged = self.run_safety_checker(pixels, self._execution_device, pixels.dtype)
            shown = [True] * len(pixels) if flagged is None else [not flag for flag in flagged]
            images = self.image_processor.postprocess(pixels, output_type=output_type, do_denormalize=shown)
            self.maybe_free_model_hooks()
        gates = None if maps is None else maps.mean()
        if not return_dict:
            return images, flagged, gates
        return DynamicIDPipelineOutput(images=images, nsfw_content_detected=flagged, gate_maps=gates)

    @property
    def crop_size(self) -> int:
        """Side in pixels of the face crops the image encoder sees (larger ones are resized)."""
        return self._crop_transform().crop

    def _crop_transform(self) -> CropTransform:
        if self.image_encoder is None or self.feature_extractor is None:
            raise ValueError("this pipeline has no image encoder: faces need one (DynamicIDPipeline.from_folders)")
        return CropTransform.from_config(self.feature_extractor.to_dict(), "feature_extractor")

    def _require_adapter(self) -> Adapter:
        if self.adapter is None:
            raise ValueError("no adapter: load_adapter(folder) first")
        return self.adapter


def _advancing(state: IdentityState, maps: GateMaps | None, callback: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return a step callback that counts the steps for the boost, folds gate maps, and then calls the caller's own."""

    def advance(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        guided = pipe.do_classifier_free_guidance
        out = tensors if callback is None else callback(pipe, step, timestep, tensors)
        # Schedulers of higher order evaluate the UNet several times in one step.
        state.step = (step + 1) // getattr(pipe.scheduler, "order", 1)
        if maps is not None:
            maps.fold()
        if guided and not pipe.do_classifier_free_guidance:
            state.conditional_half()
            if maps is not None:
                maps.guided = False
        return out

    return advance
