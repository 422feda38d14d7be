"""From reference photos and texts to a picture, for `dynamicid generate`, the web page and the served model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from model.face.face_prompts import parse
from model.face.people_prompts import one_by_one
from model.face.target_motion import TargetMotion
from model.network.known_pictures import KnownPictures
from model.network.windows import window_lefts
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.row_schemas import OK
from pipelines.core.sections.evaluation import Evaluate
from pipelines.core.server_metrics import drawing
from pipelines.core.weights.domains import (
    DRAWN,
    PHOTOGRAPH,
    NetworkDomain,
    conflicts,
    describe_conflict,
    network_domains,
)
from pipelines.core.weights.manifest import SHAPING
from pipelines.core.words import counted
from pipelines.data.faces.calibration import Recogniser, recogniser_of
from pipelines.data.faces.face_inputs import FaceInputs
from pipelines.data.faces.record import FaceRecord
from pipelines.serving.given_picture import painting
from pipelines.serving.request import Box, DrawRequest, Reference

# The largest face of a reference is used only where it has at least this many times the area of any other.
_DOMINANCE = 3.0
# A picture has at most so many times the pixels of the base's, and a face at least such a part of their side.
_LARGEST, _SMALLEST_FACE = 4, 6
# A pitch that changes the identity tokens by less than this share is not seen; the word of a pose changes a third.
_LEAST_CHANGE = 0.03
# Photos of several people are reduced to this shorter side at most before one of them is cut out.
_CUT_FROM = 2048


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

    @cached_property
    def _recogniser(self) -> Recogniser:
        return recogniser_of(self._params.preprocess)

    @property
    def sampling(self) -> Evaluate:
        """The sampling of a picture whose request names none: of conventions, `serve.steps`, and the evaluation.

        Its numbers of first steps (`boost_steps`, `layout_steps`) are for `sampling.steps` in all.
        """
        from pipelines.evaluation.sampling import sampling_of

        own = self._params.evaluate
        given = own.model_copy(update={"steps": self._params.serve.steps or own.steps})
        return sampling_of(given, self._pipeline.conventions)

    @property
    def other_base(self) -> dict[str, str]:
        """The fingerprints of the adapter's base and of the one in use; empty where they are the same."""
        from pipelines.evaluation.sampling import other_base

        return other_base(self._pipeline)

    @property
    def takes_face_prompts(self) -> bool:
        """Whether the adapter has an IMR; without one, expression and pose are those of the reference."""
        return bool(self._pipeline.adapter.takes_face_prompts)

    @property
    def has_gate(self) -> bool:
        """Whether the adapter has a gate, of which a map can be drawn."""
        return bool(self._pipeline.adapter.method.gate)

    @drawing()
    def draw(
        self, request: DrawRequest, *, gate_map: bool = False, on_step: Callable[[int, int], None] | None = None
    ) -> GeneratedPicture:
        """Draw the request; the same request and seed give the same picture.

        `on_step` is called after every denoising step with the step's number and their total. Raises UserError where a
        reference does not show one face, or the adapter takes no face prompts.
        """
        import torch

        from model.inference.motion_control import refusal
        from pipelines.evaluation.sampling import multi_person_settings, with_sampler
        from pipelines.serving.reference_sets import doubt, person_of

        method = self._pipeline.adapter.method
        if any(request.face_prompts) and not self.takes_face_prompts:
            how = "`dynamicid train-imr` adds it" if method.motion else f"{method.name} has none: say it in the prompt"
            raise UserError(f"a face prompt needs an adapter with an IMR: {how}")
        if gate_map and not self.has_gate:
            raise UserError(f"a gate map needs an adapter with a gate: {method.name} has none")
        if any(request.driving) and not self.takes_face_prompts:
            raise UserError("a driving photo needs an adapter with an IMR: this one has none (`dynamicid train-imr`)")
        people = len(request.references)
        windows, one_picture = self._windows(request)
        if not windows and self.known is not None and people > self.known.most_people:
            raise UserError(
                f"{people} people: the base was trained on {self.known.most_people} in a picture at most "
                f"({self.known.file}); draw fewer, or use a base that knows more" + (one_picture and f"; {one_picture}")
            )
        width, height = self._size(request, "windows" if windows else "regions")
        sets = [[self._record(*one) for one in person] for person in request.people]
        drivers = [None if one is None else self._record(*one) for one in request.drivers]
        motions = self._motions_of(request, drivers)
        for motion in filter(None, motions):
            if reason := refusal(self._pipeline.adapter, motion):
                raise UserError(reason)
        combine, edited = self._params.serve.combine, any(request.face_prompts) or any(motions)
        faces = [person_of(records, self._inputs, combine, edited=edited) for records in sets]
        ways = self._pipeline.conventions
        settings = self.sampling
        steps = request.steps or settings.steps
        # Published code boosts the box of one person, too.
        regions = max(people, 2) if ways.boost_one_person and request.boxes else 1 if windows else people
        pipeline = self._pipeline if request.sampler is None else with_sampler(self._pipeline, request.sampler)
        sized = {"height": height, "width": width, "guidance_rescale": settings.guidance_rescale}
        if request.into is not None:
            pipeline, sized = painting(
                pipeline,
                request,
                side=self._side,
                guidance=settings.guidance if request.guidance is None else request.guidance,
                rescale=settings.guidance_rescale,
                limits=self._params.preprocess,
                networks=self._networks,
            )
        done = pipeline(
            request.prompt,
            faces=faces,
            face_prompts=[text or None for text in request.face_prompts] or None,
            motions=motions if any(motions) else None,
            boxes=[list(box) for box in request.boxes] or None,
            window_prompts=list(windows) or None,
            identity_scale=request.scale * ways.identity_scale,
            negative_prompt=request.negative_prompt or ways.negative_prompt or None,
            num_inference_steps=steps,
            guidance_scale=settings.guidance if request.guidance is None else request.guidance,
            **sized,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            return_gate_maps=gate_map,
            callback_on_step_end=None if on_step is None else _step_callback(on_step, steps),
            **multi_person_settings(settings, regions, steps),
        )
        cut = max((self._pipeline.cut_from(text) for text in windows or (request.prompt,)), key=len)
        # An adapter by published conventions reads the text of the face prompt itself.
        verbatim = ways.target_prompt == "verbatim"
        asked = [] if verbatim else [(text, parse(text).note) for text in request.face_prompts]
        notes = [
            *(f"face prompt {text!r}: {note}" for text, note in asked if note),
            *self._motion_notes(faces, request, motions),
            *([one_picture] if one_picture else []),
            # The base sees one window, a square, at a time.
            *(self._unknown_size(1, height, height) if windows else self._unknown_size(people, width, height)),
            *_poor_boxes(request.boxes, self._side, width, height),
        ]
        if method.facial_parts and people > 1:
            notes.append(
                f"{people} people: facial parts of {method.name} are left out, as a text has those of one person"
            )
        for records, person in zip(sets, request.people, strict=True):
            if len(records) > 1 and (found := doubt(records, [one.name for one, _ in person], self._recogniser)):
                notes.append(found)
        shown = [*(record for records in sets for record in records), *filter(None, drivers)]
        if any(record.domain == DRAWN for record in shown) and (wrong := conflicts(self._networks, DRAWN)):
            notes.append(f"a reference seems to be a drawing: {describe_conflict(wrong, DRAWN)}")
        return GeneratedPicture(done.images[0], done.gate_maps[0] if gate_map else None, cut, "; ".join(notes))

    def _motions_of(self, request: DrawRequest, drivers: Sequence[FaceRecord | None]) -> list[TargetMotion | None]:
        """Return what is asked of each person's motion, with the analysed faces of the driving photos."""
        from pipelines.data.faces.analysis import to_face

        asked = list(request.motions or [None] * len(request.references))
        for n, record in enumerate(drivers):
            if record is not None:
                asked[n] = replace(asked[n] or TargetMotion(), driving=to_face(record, self._inputs))
        return asked

    def _motion_notes(
        self, faces: Sequence[Any], request: DrawRequest, motions: Sequence[TargetMotion | None]
    ) -> list[str]:
        """Return warnings about values beyond what the adapter knows, and about a pitch that it hardly follows."""
        notes = []
        for n, (face, motion) in enumerate(zip(faces, motions, strict=True)):
            if motion is None:
                continue
            who = f"person {n + 1}: " if len(faces) > 1 else ""
            notes += [f"{who}{warning}" for warning in motion.beyond_known()]
            if motion.pitch:
                texts = [request.face_prompts[n] or None] if request.face_prompts else None
                level, turned = (
                    self._pipeline.tokens_of([face], texts, [one]) for one in (replace(motion, pitch=0.0), motion)
                )
                share = float((turned - level).norm() / level.norm())
                if share < _LEAST_CHANGE:
                    notes.append(
                        f"{who}pitch {motion.pitch:g} has hardly an effect with this adapter: it changes the identity "
                        f"tokens by {share:.1%}"
                    )
        return notes

    @cached_property
    def known(self) -> KnownPictures | None:
        """What the base was trained on, None where nothing says so."""
        from pipelines.evaluation.sampling import known_base

        return known_base(self._params)

    @property
    def _side(self) -> int:
        """The side of a square picture: that of the adapter's conventions, else of the base."""
        return int(self._pipeline.conventions.resolution or self._params.base.resolution)

    @property
    def _known_sizes(self) -> KnownPictures | None:
        # A size that the conventions fix is a square.
        return self.known if self._pipeline.conventions.resolution is None else None

    def _windows(self, request: DrawRequest) -> tuple[tuple[str, ...], str]:
        """Return the prompt of each person's window, none for regions of one picture; and why it is one, if unasked.

        Boxes, and a size in which windows have no place, ask for regions.
        """
        from pipelines.evaluation.sampling import picture_size

        people = len(request.references)
        if people < 2 or self.sampling.layout != "windows" or request.boxes:
            return (), ""
        if not self._pipeline.in_windows:
            return (), "everybody is drawn in one picture: this base does not draw in windows"
        usual = picture_size(self._side, people, None, "windows")
        try:
            window_lefts(people, request.width or usual[0], request.height or usual[1])
            return one_by_one(request.prompt, people), ""
        except ValueError as error:
            return (), f"everybody is drawn in one picture, not in a window each: {error}"

    def _size(self, request: DrawRequest, layout: str) -> tuple[int, int]:
        """Return width and height of the picture; raise UserError where it is too large for the base."""
        from pipelines.evaluation.sampling import picture_size

        side = self._side
        usual = picture_size(side, len(request.references), self._known_sizes, layout)
        width, height = request.width or usual[0], request.height or usual[1]
        if width * height > _LARGEST * side * side:
            raise UserError(
                f"{width} x {height} pixels: more than {_LARGEST} times the {side} x {side} of the base; draw smaller"
            )
        return width, height

    def _unknown_size(self, people: int, width: int, height: int) -> list[str]:
        """Return a warning where the base was not trained on pictures of this size with so many people."""
        side = self._side
        known = [(side, side)] if self._known_sizes is None else self._known_sizes.sizes_of(people)
        if (width, height) in known:
            return []
        sizes = ", ".join(f"{one} x {other}" for one, other in known)
        return [f"the base was not trained on {width} x {height} pixels, so that faces may be wrong; it knows {sizes}"]

    def shows_a_face(self, photo: bytes) -> bool:
        """Return whether `photo`, an encoded picture, can be a reference."""
        try:
            self._record(Reference("photo", photo), None)
        except UserError:
            return False
        return True

    def _record(self, reference: Reference, face: int | None) -> FaceRecord:
        """Return the record of a reference's face, number `face` from the left.

        Raises UserError where there is no such face, or where no number is given and several are of similar size.
        """
        if face is not None:
            reference = reference._replace(photo=self._cut_out(reference, face))
        record = self._analyser.analyse([reference.photo])[0]
        if record.status != OK:
            raise UserError(f"{reference.name}: {_refusal(record)}")
        if record.domain == PHOTOGRAPH and (wrong := conflicts(self._networks, PHOTOGRAPH)):
            raise UserError(f"{reference.name}: this seems to be a photograph: {describe_conflict(wrong, PHOTOGRAPH)}")
        areas = record.areas
        if face is None and len(areas) > 1 and areas[1] * _DOMINANCE > areas[0]:
            raise UserError(
                f"{reference.name}: {len(areas)} faces found; say which one is meant by its number from the left (1 to "
                f"{len(areas)}), or crop the photo to that person"
            )
        return record

    def _cut_out(self, reference: Reference, face: int) -> bytes:
        """Return the part of a photo around face `face` from the left, up to its neighbours, as PNG."""
        import cv2

        from pipelines.data.faces.decode import Undecodable, decode

        limits = self._params.preprocess
        try:
            photo = decode(reference.photo, max_pixels=limits.max_pixels, min_side=1, working_side=_CUT_FROM).image
        except Undecodable as error:
            raise UserError(f"{reference.name}: {error}") from None
        view = self._analyser.upright(photo)
        boxes = sorted((one.bbox / view.factor for one in view.faces), key=lambda box: box[0] + box[2])
        if face > len(boxes):
            found = counted(len(boxes), "face")
            raise UserError(f"{reference.name}: {found} found; there is no number {face} from the left")
        x0, y0, x1, y1 = boxes[face - 1]
        height, width = view.image.shape[:2]
        left, right = max(0, x0 - (x1 - x0)), min(width, x1 + (x1 - x0))
        for other in (*boxes[: face - 1], *boxes[face:]):
            # Only what is beside the face can be cut off without cutting into it.
            left = max(left, other[2]) if other[2] <= x0 else left
            right = min(right, other[0]) if other[0] >= x1 else right
        top, bottom = max(0, y0 - (y1 - y0)), min(height, y1 + (y1 - y0))
        part = view.image[round(float(top)) : round(float(bottom)), round(float(left)) : round(float(right))]
        return cv2.imencode(".png", part[..., ::-1])[1].tobytes()


def _step_callback(on_step: Callable[[int, int], None], steps: int) -> Callable[..., dict[str, Any]]:
    def callback(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, steps)
        return tensors

    return callback


def _poor_boxes(boxes: Sequence[Box], side: int, width: int, height: int) -> list[str]:
    """Return warnings about boxes that overlap, or are small for a face of a base with pictures of `side` pixels."""
    notes = []
    for number, (y0, x0, y1, x1) in enumerate(boxes, 1):
        if min((y1 - y0) * height, (x1 - x0) * width) < side / _SMALLEST_FACE:
            least = math.ceil(side / _SMALLEST_FACE)
            notes.append(f"box {number} is too small for a face of this base, which needs {least} pixels a side")
        for other, (top, left, bottom, right) in enumerate(boxes[number:], number + 1):
            if min(y1, bottom) > max(y0, top) and min(x1, right) > max(x0, left):
                notes.append(f"boxes {number} and {other} overlap, so that these people may resemble each other there")
    return notes


def _refusal(record: FaceRecord) -> str:
    reason = "no face found" if record.reason == "no_face" else str(record.reason).replace("_", " ")
    if record.detail and record.reason != "no_face":
        reason += f" ({record.detail.removeprefix(f'{record.reason}: ')})"
    return f"{reason}; use a photo that shows one face large and clear"
