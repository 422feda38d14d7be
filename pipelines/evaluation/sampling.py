"""Drawing: pictures in batches through the pipeline, each from its own noise."""

from __future__ import annotations

import copy
import hashlib
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from model.face.conventions import OURS, Conventions
from model.face.face import Face
from model.network.known_pictures import KnownPictures, known_pictures
from model.network.methods import DYNAMICID
from model.network.windows import width_in_windows
from model.processors import use_threads
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.paths import refuse_pointers, resolve
from pipelines.core.sections.data import Preprocess
from pipelines.core.sections.evaluation import Evaluate
from pipelines.data.faces.face_inputs import FaceInputs
from pipelines.evaluation.belonging import check_recogniser
from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.photos import Photo
from pipelines.evaluation.picture_store import DrawnPicture
from pipelines.evaluation.plan import PictureSpec, TokenTable

_TOKENS_AT_ONCE = 64
_SOLVERS = {
    "ddim": "DDIMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",
}
# Samplers that add noise in every step.
_NOISY = ("lcm",)
_FLOW_SOLVERS = {"euler": "FlowMatchEulerDiscreteScheduler"}
# Parameters of the section that an adapter's conventions may fix, and all that a picture depends on.
_FIXED = ("sampler", "steps", "guidance", "guidance_rescale", "boost", "boost_steps", "layout_steps")
SAMPLED = (*_FIXED, "layout")


def device() -> str:
    """Return `cuda` where there is a CUDA device, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def use_device(number: int) -> None:
    """Let this process draw on CUDA device `number`, counted round where there are fewer."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def load_pipeline(params: Params, adapter: Path) -> Any:
    """Load the base models with `adapter`, fold in its LoRA.

    Raises UserError where one is missing or does not fit, StageFailed where the adapter was trained with another
    recogniser than that of the face pack.
    """
    from model.inference.pipeline import pipeline_class

    use_threads()
    faces = params.preprocess
    refuse_pointers(adapter.rglob("*"))
    check_recogniser(adapter, resolve(faces.insightface_root) / "models" / faces.insightface_name)
    try:
        base = resolve(params.base.pipeline)
        pipe = pipeline_class(base).from_folders(
            base,
            resolve(params.base.image_encoder),
            adapter,
            dtype=params.base.dtype,
            device=device(),
            allow_other_base=params.base.allow_other,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    pipe.fold_lora()
    if (sampler := pipe.conventions.sampler) is not None:
        use_sampler(pipe, sampler)
    if bases := other_base(pipe):
        trained, drawn = (fingerprint[:12] for fingerprint in bases.values())
        print(f"{adapter}: trained on the base {trained}, drawn with {params.base.pipeline}, {drawn}", file=sys.stderr)
    return pipe


def known_base(params: Params) -> KnownPictures | None:
    """Return what the base of `params` was trained on, None where nothing says so; raise UserError as damaged."""
    try:
        return known_pictures(resolve(params.base.pipeline))
    except ValueError as error:
        raise UserError(str(error)) from None


def use_sampler(pipe: Any, name: str) -> None:
    """Let a pipeline draw with the sampler `name` (evaluate.sampler).

    Prediction type, schedule and spacing belong to the base model; only the solver is chosen. Raises UserError for one
    that the base has not.
    """
    import diffusers

    flow = getattr(pipe, "flow_matching", False)
    solvers = _FLOW_SOLVERS if flow else _SOLVERS
    if name not in solvers:
        kind = "flow matching" if flow else "diffusion"
        raise UserError(f"sampler {name}: the base is one of {kind}; expected {', '.join(solvers)} (evaluate.sampler)")
    pipe.scheduler = getattr(diffusers, solvers[name]).from_config(pipe.scheduler.config)


def sampling_of(params: Evaluate, conventions: Conventions) -> Evaluate:
    """Return `params` with the sampling that the conventions of an adapter fix in place of their own."""
    fixed = {name: getattr(conventions, name) for name in _FIXED}
    # Conventions that say how regions are boosted are of a method that draws in regions.
    regions = {"layout": "regions"} if conventions.boost is not None else {}
    return params.model_copy(update={name: value for name, value in fixed.items() if value is not None} | regions)


def other_base(pipe: Any) -> dict[str, str]:
    """Return the fingerprints of the base that the adapter was trained on and of the one it is drawn with.

    Empty where they are the same.
    """
    reference = pipe.adapter.base_reference
    if reference is None or pipe.base_fingerprint in (None, reference.fingerprint):
        return {}
    return {"base": reference.fingerprint, "base_drawn": pipe.base_fingerprint}


def multi_person_settings(params: Evaluate, people: int, steps: int | None = None) -> dict[str, float | int]:
    """Return boost, boost_steps and layout_steps of a pipeline call for `people` people in regions of one picture.

    All are 0 for a single person. The numbers of steps in `params` are for `params.steps` in all; for other `steps`
    they are scaled in proportion.
    """
    share = 0 if people < 2 else 1 if steps is None else steps / params.steps
    return {
        "boost": params.boost if people > 1 else 0.0,
        "boost_steps": round(params.boost_steps * share),
        "layout_steps": round(params.layout_steps * share),
    }


def with_sampler(pipe: Any, sampler: str) -> Any:
    """Return a pipeline of the same models with another solver; `pipe` stays as it is."""
    other = copy.copy(pipe)
    use_sampler(other, sampler)
    return other


def picture_size(resolution: int, people: int, known: KnownPictures | None, layout: str = "regions") -> tuple[int, int]:
    """Return width and height of a picture of `people` people.

    A square; with regions, the size for so many that the base knows; with windows, what these need.
    """
    if people > 1 and layout == "windows":
        return width_in_windows(people, resolution), resolution
    if people < 2 or known is None:
        return resolution, resolution
    return known.size_for(people)


def decoded_again(vae: Any, images: Sequence[np.ndarray], side: int, batch: int) -> list[np.ndarray]:
    """Return square photos (H, W, 3) uint8 RGB as an autoencoder gives them back, (side, side, 3) uint8 RGB."""
    import cv2
    import torch

    from model.network.latents import encode_pixels, unscale_latents

    restored: list[np.ndarray] = []
    for start in range(0, len(images), batch):
        part = [
            cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images[start : start + batch]
        ]
        pixels = torch.from_numpy(np.stack(part)).to(vae.device, vae.dtype).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.inference_mode():
            decoded = vae.decode(unscale_latents(vae, encode_pixels(vae, pixels)), return_dict=False)[0]
        levels = ((decoded.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        restored += list(levels.permute(0, 2, 3, 1).cpu().numpy())
    return restored


class CellRenderer:
    """A pipeline with the sampling settings of the evaluation, or those that the adapter's conventions fix.

    `params` and `resolution` are those in use; `known`: what its base was trained on; `preprocess` names the networks
    that some conventions need; `adapter`: the folder that the pipeline was loaded with; `key`: a hash of base, adapter
    and code (default: one that no other renderer has).
    """

    def __init__(
        self,
        pipe: Any,
        params: Evaluate,
        resolution: int,
        known: KnownPictures | None = None,
        *,
        preprocess: Preprocess | None = None,
        adapter: Path | None = None,
        key: str | None = None,
    ) -> None:
        self.pipe = pipe
        self.adapter = adapter
        self.key = uuid.uuid4().hex if key is None else key
        self._conventions: Conventions = getattr(pipe, "conventions", OURS)
        self.params = sampling_of(params, self._conventions)
        self.resolution = self._conventions.resolution or resolution
        # A size that the conventions fix is a square.
        self._known = known if self._conventions.resolution is None else None
        self._preprocess = preprocess
        use_sampler(pipe, self.params.sampler)
        pipe.set_progress_bar_config(disable=True)

    def tokens(self, questions: EvaluationSet, photos: Mapping[str, Photo]) -> TokenTable:
        """Return the identity tokens of every reference, unchanged and reconfigured, and of every true photo.

        Target landmarks come from templates fitted to the reference, never from the held-out person's other photos;
        only the true tokens, those of a perfect reconfiguration, are encoded from such photos.
        """
        inputs = FaceInputs(self.pipe.crop_size, self._conventions, self._preprocess)

        # Photos are decoded when they are needed; the face prompts of a person follow each other.
        @lru_cache(maxsize=_TOKENS_AT_ONCE)
        def face(photo: str) -> Face:
            return photos[photo].face(inputs)

        references = [person.reference for person in questions.people]
        own = self._encode(references, face, None)
        prompts = {(cell.person, cell.expression, cell.pose): cell.face_prompt for cell in questions.cells}
        for multi in questions.multi_cells:
            asked_for = zip(multi.people, multi.expressions, multi.poses, strict=True)
            prompts |= dict(zip(asked_for, multi.face_prompts, strict=True))
        method = self.pipe.adapter.method
        if method.motion:
            asked = self._encode([references[person] for person, _, _ in prompts], face, list(prompts.values()))
        else:
            asked = [own[person] for person, _, _ in prompts]
        shown = [(number, cell.true_photo) for number, cell in enumerate(questions.cells) if cell.true_photo]
        true = self._encode([photo for _, photo in shown], face, None)
        several = sorted({photo for multi in questions.multi_cells for photo in multi.photos or ()})
        return TokenTable(
            own=dict(enumerate(own)),
            asked=dict(zip(prompts, asked, strict=True)),
            true={number: tokens for (number, _), tokens in zip(shown, true, strict=True)},
            multi=dict(zip(several, self._encode(several, face, None), strict=True)),
            method=method,
            layout=self.params.layout,
        )

    def _encode(
        self, photos: Sequence[str], face: Callable[[str], Face], prompts: list[str] | None
    ) -> list[np.ndarray]:
        rows: list[np.ndarray] = []
        for start in range(0, len(photos), _TOKENS_AT_ONCE):
            end = start + _TOKENS_AT_ONCE
            texts = None if prompts is None else [[text] for text in prompts[start:end]]
            encoded = self.pipe.tokens_of([[face(photo)] for photo in photos[start:end]], texts)
            rows += list(encoded.float().cpu().numpy())
        return rows

    def soften(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return photos (H, W, 3) uint8 RGB as `decoded_again` does, at the evaluation's resolution."""
        return decoded_again(self.pipe.vae, images, self.resolution, self.params.batch_size)

    def key_of(self, spec: PictureSpec) -> str:
        """Return the sha256 (hex) of all that the picture depends on; equal ones may be asked for in two ways."""
        if spec.tokens is not None and spec.threshold is None:
            spec = replace(spec, threshold=self.pipe.adapter.gate_threshold)
        if spec.guidance is None:
            spec = replace(spec, guidance=self.params.guidance)
        sampling = [getattr(self.params, name) for name in SAMPLED if name != "guidance"]
        size = picture_size(self.resolution, spec.people, self._known, self.params.layout)
        return hashlib.sha256(repr((self.key, spec.key, sampling, size)).encode()).hexdigest()

    def draw(self, specs: Sequence[PictureSpec]) -> list[DrawnPicture]:
        """Draw a few pictures in batches of equal settings; return them in the order of `specs`, all in memory."""
        from pipelines.evaluation.batches import compose

        drawn: dict[str, DrawnPicture] = {}
        for batch in compose({str(number): spec for number, spec in enumerate(specs)}, self.params.batch_size):
            drawn |= zip(batch.keys, self.draw_batch(batch.specs), strict=True)
        return [drawn[str(number)] for number in range(len(specs))]

    def draw_batch(self, specs: Sequence[PictureSpec]) -> list[DrawnPicture]:
        """Draw pictures of equal settings at once."""
        import torch

        first = specs[0]
        width, height = picture_size(self.resolution, first.people, self._known, self.params.layout)
        # On the CPU, so that a picture starts from the same noise on every device.
        generators = [torch.Generator("cpu").manual_seed(spec.noise) for spec in specs]
        arguments: dict[str, Any] = {
            "latents": torch.stack([self._noise(one, width, height) for one in generators]),
            "num_inference_steps": self.params.steps,
            "guidance_scale": self.params.guidance if first.guidance is None else first.guidance,
            "guidance_rescale": self.params.guidance_rescale,
            "height": height,
            "width": width,
            "output_type": "np",
        }
        if self.params.sampler in _NOISY:
            arguments["generator"] = generators
        if self._conventions.negative_prompt:
            arguments["negative_prompt"] = [self._conventions.negative_prompt] * len(specs)
        has_gate = first.tokens is not None and first.gate and first.scale != 0
        shows_gate = has_gate and getattr(getattr(self.pipe, "adapter", None), "method", DYNAMICID).gate
        if first.tokens is not None:
            tokens = np.stack([spec.tokens for spec in specs if spec.tokens is not None])
            arguments |= {
                "identity_tokens": torch.from_numpy(tokens),
                "boxes": None if first.boxes is None else [list(box) for box in first.boxes],
                "gate": first.gate,
                "gate_threshold": first.threshold,
                "identity_scale": first.scale * self._conventions.identity_scale,
                "return_gate_maps": shows_gate,
                **multi_person_settings(self.params, 1 if first.boxes is None else len(first.boxes)),
            }
        if first.windows is not None:
            arguments["window_prompts"] = [list(spec.windows or ()) for spec in specs]
        done = self.pipe([spec.prompt for spec in specs], **arguments)
        images = np.clip(np.rint(done.images * 255.0), 0, 255).astype(np.uint8)
        gates = done.gate_maps if shows_gate else [None] * len(specs)
        return [DrawnPicture(image, gate) for image, gate in zip(images, gates, strict=True)]

    def _noise(self, generator: Any, width: int, height: int) -> Any:
        import torch

        factor = self.pipe.vae_scale_factor
        shape = (self.pipe.vae.config.latent_channels, height // factor, width // factor)
        noise = torch.randn(shape, generator=generator, dtype=torch.float32)
        return noise.to(self.pipe.denoiser.device, self.pipe.denoiser.dtype)
