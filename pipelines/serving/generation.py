"""From reference photos and texts to a picture: what `dynamicid generate` and the served model share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.face.face_prompts import EXPRESSIONS, POSE_PHRASES, parse
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.core.records import OK

Box = tuple[float, float, float, float]

# The largest face of a reference is meant beyond doubt where it has this many times the area of any other.
_DOMINANCE = 3.0
_WORKING_SIDE = 640


@dataclass(frozen=True)
class Request:
    """One picture to draw.

    `references`: one encoded photo per person, `names` what errors call them; `face_prompts`: none, or one per person
    (an empty one keeps what the reference shows); `boxes`: none, or one per person as (y0, x0, y1, x1) in [0, 1].
    """

    references: tuple[bytes, ...]
    prompt: str
    face_prompts: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    names: tuple[str, ...] = ()
    seed: int = 0
    negative_prompt: str | None = None
    steps: int | None = None
    guidance: float | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Drawn:
    """The picture (PIL, RGB) and, where asked for, the gate averaged over steps and layers, (H, W) in [0, 1]."""

    image: Any
    gate_map: Any = field(default=None)


def check_request(request: Request) -> None:
    """Raise UserError on a request that cannot be drawn, saying what to change."""
    people = len(request.references)
    if not people:
        raise UserError("no reference photo: give at least one")
    if len(request.face_prompts) > people:
        raise UserError(f"{len(request.face_prompts)} face prompts for {people} people: give none or one per reference")
    if request.face_prompts and len(request.face_prompts) != people:
        raise UserError(f"{len(request.face_prompts)} face prompts for {people} people: give one per reference")
    if request.boxes and len(request.boxes) != people:
        raise UserError(f"{len(request.boxes)} boxes for {people} people: give none or one per reference")
    for text in request.face_prompts:
        wish = parse(text)
        if text and wish.expression is None and wish.pose is None:
            raise UserError(
                f"face prompt {text!r} names no expression ({', '.join(EXPRESSIONS)}) and no pose "
                f"({', '.join(POSE_PHRASES.values())})"
            )
    for name, number in (("guidance", request.guidance), ("scale", request.scale)):
        if number is not None and not math.isfinite(number):
            raise UserError(f"{name} {number}: expected a finite number")
    for box in request.boxes:
        y0, x0, y1, x1 = box
        shown = ",".join(f"{edge:g}" for edge in box)
        if not (0 <= y0 <= 1 and 0 <= x0 <= 1 and 0 <= y1 <= 1 and 0 <= x1 <= 1):
            raise UserError(f"box {shown}: expected y0,x0,y1,x1 between 0 and 1")
        if y1 <= y0 or x1 <= x0:
            raise UserError(f"box {shown}: it has no area; expected y0 < y1 and x0 < x1")


class Generator:
    """Base model, adapter and face analysers, loaded once."""

    def __init__(self, pipeline: Any, analyser: Any, params: Params) -> None:
        self._pipeline = pipeline
        self._analyser = analyser
        self._params = params

    @classmethod
    def load(cls, adapter: Path, params: Params) -> Generator:
        """Load everything from local files; raise UserError where a folder is missing or does not fit."""
        import torch

        from model.inference.pipeline import pipeline_class
        from pipelines.data.faces.analysis import load_analyser

        if not (adapter / "config.json").is_file():
            raise UserError(f"{adapter}: no adapter here (config.json is missing); `dynamicid repro` trains one")
        try:
            base = resolve(params.base.pipeline)
            pipeline = pipeline_class(base).from_folders(
                base,
                resolve(params.base.image_encoder),
                adapter,
                dtype=params.base.dtype,
                device="cuda" if torch.cuda.is_available() else "cpu",
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        pipeline.fold_lora()
        pipeline.set_progress_bar_config(desc="drawing", leave=False)
        # The largest face is looked at; `_check_alone` refuses photos in which another one could be meant.
        preprocess = params.preprocess.model_copy(update={"several_faces": "largest"})
        return cls(pipeline, load_analyser(preprocess), params)

    @property
    def takes_face_prompts(self) -> bool:
        """Whether the adapter has an IMR, without which expression and pose stay those of the reference."""
        return self._pipeline.adapter.templates is not None

    def draw(
        self, request: Request, *, gate_map: bool = False, on_step: Callable[[int, int], None] | None = None
    ) -> Drawn:
        """Draw the request; the same request and seed give the same picture.

        `on_step` is called after every denoising step with how many are done, and of how many.
        """
        import torch

        from pipelines.data.faces.analysis import to_face
        from pipelines.evaluation.sampling import company

        check_request(request)
        if any(request.face_prompts) and not self.takes_face_prompts:
            raise UserError("a face prompt needs an adapter with an IMR: `dynamicid train-imr` adds it")
        crop_size = self._pipeline.crop_size
        faces = []
        for position, data in enumerate(request.references):
            name = request.names[position] if request.names else f"reference {position + 1}"
            faces.append(to_face(self._look(name, data), crop_size))
        settings = self._params.evaluate
        size = self._params.base.resolution
        steps = request.steps or settings.steps
        done = self._pipeline(
            request.prompt,
            faces=faces,
            face_prompts=[text or None for text in request.face_prompts] or None,
            boxes=[list(box) for box in request.boxes] or None,
            identity_scale=request.scale,
            negative_prompt=request.negative_prompt,
            num_inference_steps=steps,
            guidance_scale=settings.guidance if request.guidance is None else request.guidance,
            guidance_rescale=settings.guidance_rescale,
            height=size,
            width=size,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            return_gate_maps=gate_map,
            callback_on_step_end=None if on_step is None else _telling(on_step, steps),
            **company(settings, len(faces), steps),
        )
        return Drawn(done.images[0], done.gate_maps[0] if gate_map else None)

    def shows_a_face(self, photo: bytes) -> bool:
        """Tell whether `photo`, an encoded picture, can be a reference."""
        try:
            self._look("photo", photo)
        except UserError:
            return False
        return True

    def _look(self, name: str, data: bytes) -> Any:
        """Return the record of the one face that a reference shows; UserError where there is none, or no single one."""
        from pipelines.data.faces.analysis import analyse_photo

        record = analyse_photo(data, self._analyser)
        if record.status != OK:
            raise UserError(f"{name}: {_refusal(record)}")
        self._check_alone(name, data, record)
        return record

    def _check_alone(self, name: str, data: bytes, record: Any) -> None:
        """Raise UserError where more than one face of the photo could be meant; a far smaller one is a passer-by."""
        from pipelines.data.faces.decode import decode

        if record.n_faces < 2:
            return
        limits = self._params.preprocess
        photo = decode(data, max_pixels=limits.max_pixels, min_side=1, working_side=_WORKING_SIDE)
        boxes = [face.bbox for face in self._analyser.analyse_images([photo.image])[0]]
        areas = sorted(((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes), reverse=True)
        if len(areas) > 1 and areas[1] * _DOMINANCE > areas[0]:
            raise UserError(f"{name}: {len(areas)} faces found; crop the photo to the person who is meant")


def _telling(on_step: Callable[[int, int], None], steps: int) -> Callable[..., dict[str, Any]]:
    """Return the callback of diffusers that tells `on_step` how far the drawing is."""

    def callback(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, steps)
        return tensors

    return callback


def _refusal(record: Any) -> str:
    """Say why a reference cannot be used, and what to do."""
    if record.reason == "no_face":
        return "no face found; use a photo that shows one face large and clear"
    detail = f" ({record.detail.removeprefix(f'{record.reason}: ')})" if record.detail else ""
    return f"{str(record.reason).replace('_', ' ')}{detail}; use a photo that shows one face large and clear"
