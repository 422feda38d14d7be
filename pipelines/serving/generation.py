"""From reference photos and texts to a picture, for `dynamicid generate`, the web page and the served model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.row_schemas import OK
from pipelines.core.weights.domains import (
    DRAWN,
    PHOTOGRAPH,
    NetworkDomain,
    conflicts,
    describe_conflict,
    network_domains,
)
from pipelines.core.weights.manifest import SHAPING
from pipelines.data.faces.face_inputs import FaceInputs
from pipelines.data.faces.record import FaceRecord
from pipelines.serving.request import DrawRequest, Reference

# The largest face of a reference is used only where it has at least this many times the area of any other.
_DOMINANCE = 3.0


@dataclass(frozen=True)
class GeneratedPicture:
    """The picture (PIL, RGB), and what of the prompt was cut, as it was too long for the model ("" for nothing).

    On request also the mean gate over steps and layers, (h, w) of the latents, in [0, 1]. `note`: why the picture
    may be wrong all the same, "" for nothing.
    """

    image: Any
    gate_map: Any = None
    cut: str = ""
    note: str = ""


class Generator:
    """Base model, adapter and face analysers, loaded once."""

    def __init__(self, pipeline: Any, analyser: Any, params: Params) -> None:
        self._pipeline = pipeline
        self._analyser = analyser
        self._params = params

    @classmethod
    def load(cls, adapter: Path, params: Params) -> Generator:
        """Load everything from local files; raise UserError where a folder is missing or does not fit."""
        from pipelines.data.faces.analysis import load_analyser
        from pipelines.evaluation.sampling import load_pipeline

        pipeline = load_pipeline(params, adapter)
        pipeline.set_progress_bar_config(desc="drawing", leave=False)
        # The largest face is analysed; `_record` refuses photos with another face of similar size.
        preprocess = params.preprocess.model_copy(update={"several_faces": "largest"})
        return cls(pipeline, load_analyser(preprocess), params)

    @cached_property
    def _inputs(self) -> FaceInputs:
        return FaceInputs(self._pipeline.crop_size, self._pipeline.conventions, self._params.preprocess)

    @cached_property
    def _networks(self) -> list[NetworkDomain]:
        return network_domains(self._params, SHAPING)

    @property
    def other_base(self) -> dict[str, str]:
        """The fingerprints of the adapter's base and of the one in use; empty where they are the same."""
        from pipelines.evaluation.sampling import other_base

        return other_base(self._pipeline)

    @property
    def takes_face_prompts(self) -> bool:
        """Whether the adapter has an IMR; without one, expression and pose are those of the reference."""
        return bool(self._pipeline.adapter.takes_face_prompts)

    def draw(
        self, request: DrawRequest, *, gate_map: bool = False, on_step: Callable[[int, int], None] | None = None
    ) -> GeneratedPicture:
        """Draw the request; the same request and seed give the same picture.

        `on_step` is called after every denoising step with the step's number and their total. Raises UserError where a
        reference does not show one face, or the adapter takes no face prompts.
        """
        import torch

        from pipelines.data.faces.analysis import to_face
        from pipelines.evaluation.sampling import multi_person_settings, sampling_of

        if any(request.face_prompts) and not self.takes_face_prompts:
            raise UserError("a face prompt needs an adapter with an IMR: `dynamicid train-imr` adds it")
        records = [self._record(reference) for reference in request.references]
        faces = [to_face(record, self._inputs, edited=any(request.face_prompts)) for record in records]
        ways = self._pipeline.conventions
        settings = sampling_of(self._params.evaluate, ways)
        size = ways.resolution or self._params.base.resolution
        steps = request.steps or settings.steps
        # Published code boosts the box of one person, too.
        regions = max(len(faces), 2) if ways.boost_one_person and request.boxes else len(faces)
        done = self._pipeline(
            request.prompt,
            faces=faces,
            face_prompts=[text or None for text in request.face_prompts] or None,
            boxes=[list(box) for box in request.boxes] or None,
            identity_scale=request.scale * ways.identity_scale,
            negative_prompt=request.negative_prompt or ways.negative_prompt or None,
            num_inference_steps=steps,
            guidance_scale=settings.guidance if request.guidance is None else request.guidance,
            guidance_rescale=settings.guidance_rescale,
            height=size,
            width=size,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            return_gate_maps=gate_map,
            callback_on_step_end=None if on_step is None else _step_callback(on_step, steps),
            **multi_person_settings(settings, regions, steps),
        )
        cut = self._pipeline.cut_from(request.prompt)
        note = ""
        if any(record.domain == DRAWN for record in records) and (wrong := conflicts(self._networks, DRAWN)):
            note = f"a reference seems to be a drawing: {describe_conflict(wrong, DRAWN)}"
        return GeneratedPicture(done.images[0], done.gate_maps[0] if gate_map else None, cut, note)

    def shows_a_face(self, photo: bytes) -> bool:
        """Return whether `photo`, an encoded picture, can be a reference."""
        try:
            self._record(Reference("photo", photo))
        except UserError:
            return False
        return True

    def _record(self, reference: Reference) -> FaceRecord:
        """Return the record of a reference's face; raise UserError without a face or with several of similar size."""
        record = self._analyser.analyse([reference.photo])[0]
        if record.status != OK:
            raise UserError(f"{reference.name}: {_refusal(record)}")
        if record.domain == PHOTOGRAPH and (wrong := conflicts(self._networks, PHOTOGRAPH)):
            raise UserError(f"{reference.name}: this seems to be a photograph: {describe_conflict(wrong, PHOTOGRAPH)}")
        areas = record.areas
        if len(areas) > 1 and areas[1] * _DOMINANCE > areas[0]:
            raise UserError(f"{reference.name}: {len(areas)} faces found; crop the photo to the person who is meant")
        return record


def _step_callback(on_step: Callable[[int, int], None], steps: int) -> Callable[..., dict[str, Any]]:
    def callback(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, steps)
        return tensors

    return callback


def _refusal(record: FaceRecord) -> str:
    reason = "no face found" if record.reason == "no_face" else str(record.reason).replace("_", " ")
    if record.detail and record.reason != "no_face":
        reason += f" ({record.detail.removeprefix(f'{record.reason}: ')})"
    return f"{reason}; use a photo that shows one face large and clear"
