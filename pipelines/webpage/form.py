"""The page's form: its components, and the request that they make."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from model.face.face import MAX_REFERENCES
from model.face.face_prompts import EXPRESSIONS, POSE_PHRASES, POSES
from model.face.target_motion import PITCH, STRENGTH, YAW
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.sections.evaluation import Evaluate
from pipelines.serving.request import (
    MAX_GUIDANCE,
    MAX_SCALE,
    MAX_TEXT,
    SAMPLERS,
    DrawRequest,
    Reference,
    References,
    read_request,
)
from pipelines.webpage.box_pad import box_pad, boxes_of, with_boxes, with_shape
from pipelines.webpage.examples import Example

_SEEDS = 2**31
# So many people are shown at once, the others are folded.
_SHOWN = 2


@dataclass(frozen=True)
class Person:
    """The form's components for one person."""

    photo: Any
    face: Any
    more: Any
    expression: Any
    pose: Any
    strength: Any
    yaw: Any
    pitch: Any
    driving: Any
    driving_face: Any


@dataclass(frozen=True)
class Form:
    """The form's components, the button included."""

    people: tuple[Person, ...]
    prompt: Any
    boxes: Any
    number: Any
    width: Any
    height: Any
    seed: Any
    new_seed: Any
    negative: Any
    steps: Any
    guidance: Any
    scale: Any
    sampler: Any
    draw: Any

    def faces(self) -> list[Any]:
        """Return photo, number of the face, more photos, and what says expression and pose, of each person in order."""
        return [part for person in self.people for part in vars(person).values()]

    def inputs(self) -> set[Any]:
        """Return every component that has a value."""
        return {*self.faces(), *(part for name, part in vars(self).items() if name not in ("people", "draw"))}


def build_form(
    params: Params, settings: Evaluate, people: int, *, takes_face_prompts: bool, examples: Sequence[Example]
) -> Form:
    """Return the form for up to `people` people, inside the Blocks that are being built; `examples` fill it.

    `settings`: the sampling that it begins with.
    """
    with gr.Row(elem_id="examples"):
        # The example of several people comes first.
        buttons = [gr.Button(f"Try {example.name.lower()}", size="sm") for example in examples]
    persons = []
    with gr.Row(elem_id="people", equal_height=False):
        persons += [_person(n, takes_face_prompts) for n in range(min(_SHOWN, people))]
    if people > _SHOWN:
        with gr.Accordion("More people", open=False), gr.Row(equal_height=False):
            persons += [_person(n, takes_face_prompts) for n in range(_SHOWN, people)]
    prompt = gr.Textbox(
        label="What the picture shows besides the faces",
        placeholder="a photo of a person wearing a red t-shirt, blue background",
        lines=2,
        max_length=MAX_TEXT,
        elem_id="prompt",
        submit_btn=False,
    )
    with gr.Accordion("Where each person stands", open=people > 1, elem_id="places"):
        gr.Markdown(
            "Without boxes the people stand side by side"
            + (", each in a part of a wide picture." if settings.layout == "windows" else ".")
        )
        boxes = box_pad(people)
    with gr.Row():
        number = gr.Slider(1, min(4, params.serve.max_rows), 1, step=1, label="Number of pictures", min_width=160)
        sides: dict[str, Any] = {"precision": 0, "minimum": 0, "step": 8, "min_width": 120}
        width, height = (
            gr.Number(0, label=name, info="Pixels; 0: as the base knows best.", elem_id=name.lower(), **sides)
            for name in ("Width", "Height")
        )
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**53 - 1, min_width=140, elem_id="seed")
        new_seed = gr.Checkbox(
            True, label="A new seed for every picture", info="Off: the same seed, the same picture.", elem_id="new-seed"
        )
    with gr.Accordion("More", open=False):
        negative = gr.Textbox(label="What the picture must not show", max_length=MAX_TEXT)
        most = params.serve.max_steps
        steps = gr.Slider(1, most, min(most, settings.steps), step=1, label="Denoising steps")
        guidance = gr.Slider(0, MAX_GUIDANCE, settings.guidance, step=0.5, label="Guidance by the text")
        scale = gr.Slider(0, MAX_SCALE, 1, step=0.05, label="Strength of the identity")
        sampler = gr.Dropdown([("of the base", ""), *SAMPLERS], value="", label="Sampler", min_width=140)
    draw = gr.Button("Draw", variant="primary", size="lg", elem_id="draw")
    form = Form(
        people=tuple(persons),
        prompt=prompt,
        boxes=boxes,
        number=number,
        width=width,
        height=height,
        seed=seed,
        new_seed=new_seed,
        negative=negative,
        steps=steps,
        guidance=guidance,
        scale=scale,
        sampler=sampler,
        draw=draw,
    )
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    for button, example in zip(buttons, examples, strict=True):
        button.click(lambda one=example: _filled(form, one), outputs=[*form.faces(), prompt, boxes], **quick)
    gr.on([width.change, height.change], with_shape, [boxes, width, height], boxes, **quick)
    return form


def _person(n: int, takes_face_prompts: bool) -> Person:
    with gr.Column(min_width=250, elem_classes="person"):
        photo = gr.Image(
            label=f"Photo of person {n + 1}",
            buttons=[],
            type="filepath",
            # As uploaded: the picture is not decoded before its size is checked.
            image_mode=None,
            sources=["upload", "clipboard", "webcam"],
            height=200,
            elem_id=f"photo-{n + 1}",
        )
        photo.preprocess = _uploaded_file
        more = gr.File(
            label=f"More photos of person {n + 1}",
            file_count="multiple",
            height=90,
            elem_id=f"more-{n + 1}",
        )
        more.preprocess = _uploaded_files
        info = None if takes_face_prompts else "This adapter has no IMR: expression and pose stay as in the photo."
        kept = ("as in the photo", "")
        chips: dict[str, Any] = {"value": "", "interactive": takes_face_prompts, "elem_classes": "chips"}
        expression = gr.Radio(
            [kept, *EXPRESSIONS],
            label=f"Expression of person {n + 1}",
            info=info,
            elem_id=f"expression-{n + 1}",
            **chips,
        )
        poses = [(pose.replace("_", " "), pose) for pose in POSES]
        pose = gr.Radio(
            [kept, *poses], label=f"Head pose of person {n + 1}, seen from you", elem_id=f"pose-{n + 1}", **chips
        )
        face = gr.Number(
            0,
            label=f"Which face of photo {n + 1}",
            info="From the left, if it shows several; 0: the only one.",
            precision=0,
            minimum=0,
            min_width=120,
        )
    with gr.Accordion(f"Finer expression and pose of person {n + 1}", open=False, elem_id=f"finer-{n + 1}"):
        finer: dict[str, Any] = {"interactive": takes_face_prompts}
        strength = gr.Slider(*STRENGTH, 1, step=0.05, label="Strength of the expression", **finer)
        yaw, pitch = (
            gr.Number(None, label=label, info=info, minimum=low, maximum=high, min_width=120, **finer)
            for label, info, (low, high) in (
                ("Yaw", "Degrees, to the picture's right; empty: the head pose above.", YAW),
                ("Pitch", "Degrees upwards; empty: level.", PITCH),
            )
        )
        driving = gr.Image(
            label=f"Photo whose expression and pose person {n + 1} takes",
            buttons=[],
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard", "webcam"],
            height=160,
            elem_id=f"driving-{n + 1}",
            **finer,
        )
        driving.preprocess = _uploaded_file
        driving_face = gr.Number(
            0, label="Which face of that photo", info="As above.", precision=0, minimum=0, min_width=120, **finer
        )
    return Person(photo, face, more, expression, pose, strength, yaw, pitch, driving, driving_face)


def _uploaded_file(upload: Any) -> str | None:
    """Return the path of an upload; Gradio would open the picture, and refuse some that the project can decode."""
    return None if upload is None else upload.path


def _uploaded_files(uploads: Any) -> list[str]:
    """Return the paths of uploads, of which Gradio would open each, too."""
    return [] if uploads is None else [upload.path for upload in uploads]


def _filled(form: Form, example: Example) -> list[Any]:
    """Return the values of `Form.faces`, of the prompt and of the boxes."""
    faces: list[Any] = []
    for n in range(len(form.people)):
        there = n < len(example.photos)
        faces += [example.photos[n] if there else None, 0, None]
        faces += [example.expressions[n], example.poses[n]] if there else ["", ""]
        faces += [1, None, None, None, 0]
    return [*faces, example.prompt, with_boxes(())]


def request_of(form: Form, values: Mapping[Any, Any], params: Params) -> DrawRequest:
    """Return the request for the form's values; UserError where a photo or a seed is missing or a value is invalid."""
    there = [n for n, person in enumerate(form.people) if values[person.photo]]
    if not there:
        raise UserError("no photo yet: upload a photo of a person, or choose a drawn person")
    if values[form.new_seed]:
        seed = secrets.randbelow(_SEEDS)
    elif values[form.seed] is None:
        raise UserError("no seed: type a whole number, or tick a new seed for every picture")
    else:
        seed = values[form.seed]
    faces = [form.people[n] for n in there]
    face_prompts = [face_prompt(values[person.expression], values[person.pose]) for person in faces]
    sets = [[values[person.photo], *(values[person.more] or ())] for person in faces]
    meant = [[values[person.face], *[0] * (len(own) - 1)] for person, own in zip(faces, sets, strict=True)]
    return read_request(
        (_references(own, n + 1) for n, own in zip(there, sets, strict=True)),
        {
            "prompt": values[form.prompt] or "",
            "face_prompts": face_prompts if any(face_prompts) else None,
            "boxes": boxes_of(values[form.boxes], there),
            "faces": [own if len(own) > 1 else own[0] for own in meant],
            "seed": seed,
            # At full strength an expression is what its word says.
            "strength": [None if values[one.strength] in (None, 1) else values[one.strength] for one in faces],
            "yaw": [values[one.yaw] for one in faces],
            "pitch": [values[one.pitch] for one in faces],
            "driving_faces": [values[one.driving_face] if values[one.driving] else 0 for one in faces],
            **{name: values[getattr(form, name)] for name in ("width", "height", "number", "sampler")},
        },
        params.serve,
        driving=[_driving(values[one.driving], n + 1) for n, one in zip(there, faces, strict=True)],
        negative_prompt=values[form.negative],
        steps=values[form.steps],
        guidance=values[form.guidance],
        scale=values[form.scale],
    )


def _references(files: Sequence[str], number: int) -> References:
    """Return the photo of person `number`, or several."""
    if len(files) > MAX_REFERENCES:
        raise UserError(f"person {number}: {len(files)} photos; at most {MAX_REFERENCES}")
    if len(files) == 1:
        return Reference(f"person {number}", Path(files[0]).read_bytes())
    names = [f"photo {n} of person {number}" for n in range(1, len(files) + 1)]
    return tuple(Reference(name, Path(file).read_bytes()) for name, file in zip(names, files, strict=True))


def _driving(file: str | None, number: int) -> Reference | None:
    return None if not file else Reference(f"driving photo of person {number}", Path(file).read_bytes())


def face_prompt(expression: str | None, pose: str | None) -> str:
    """Return the face prompt for the two chosen chips; an empty chip leaves expression or pose as in the photo."""
    return ", ".join(text for text in (expression, POSE_PHRASES[pose] if pose else None) if text)
