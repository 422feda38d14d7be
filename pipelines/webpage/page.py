"""The page: its form, its layout and what its buttons do."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from model.face.face_prompts import EXPRESSIONS, POSE_PHRASES, POSES
from pipelines.core.errors import UserError
from pipelines.serving.request import MAX_GUIDANCE, MAX_SCALE, MAX_TEXT, SAMPLERS, DrawRequest, Reference, read_request
from pipelines.webpage.api import add_api
from pipelines.webpage.box_pad import box_pad, boxes_of, with_boxes
from pipelines.webpage.drawing import Renderer
from pipelines.webpage.errors import PageBlocks, as_gradio_errors
from pipelines.webpage.examples import Example

# Gradio deletes files older than _KEEP every _SWEEP seconds.
_SWEEP, _KEEP = 300, 3600
_EARLIER = 24
# Gradio's default buttons include one that shares a picture on a website.
_BUTTONS = ["download", "fullscreen"]
_SEEDS = 2**31


@dataclass(frozen=True)
class Person:
    """The form's components for one person."""

    photo: Any
    face: Any
    expression: Any
    pose: Any


@dataclass(frozen=True)
class Form:
    """The form's components, the button included."""

    people: tuple[Person, ...]
    prompt: Any
    boxes: Any
    seed: Any
    new_seed: Any
    negative: Any
    steps: Any
    guidance: Any
    scale: Any
    width: Any
    height: Any
    number: Any
    sampler: Any
    draw: Any

    def faces(self) -> list[Any]:
        """Return photo, number of the face, expression and pose of each person, in order."""
        return [part for person in self.people for part in vars(person).values()]

    def inputs(self) -> set[Any]:
        """Return every component that has a value."""
        return {*self.faces(), *(part for name, part in vars(self).items() if name not in ("people", "draw"))}


def build(renderer: Renderer, examples: Sequence[Example]) -> Any:
    """Return the page as Gradio's Blocks, its API included; the examples lie outside the renderer's folder."""
    read_only: dict[str, Any] = {"buttons": _BUTTONS, "format": "png", "interactive": False}
    # One picture at a time for page and API together.
    shared = {"concurrency_id": "drawing", "concurrency_limit": 1}
    with PageBlocks(title="DynamicID", analytics_enabled=False, delete_cache=(_SWEEP, _KEEP)) as page:
        gr.Markdown(
            "# DynamicID\nPictures of people from one photo each, with the expression and pose that you choose. "
            f"Model: **{_escape(renderer.version)}**",
            elem_id="head",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=400):
                form = _form(renderer)
                _examples(form, examples)
            with gr.Column(scale=6, min_width=400):
                with gr.Row():
                    picture, heat = (
                        gr.Image(label=label, elem_id=name, height=360, min_width=240, **read_only)
                        for name, label in (("picture", "Picture"), ("heat", "Where the identity is applied"))
                    )
                status = gr.Markdown("Upload a photo of a person, or start with a drawn person.", elem_id="status")
                earlier = gr.Gallery(
                    label="Earlier pictures of this visit",
                    elem_id="earlier",
                    columns=6,
                    height=240,
                    fit_columns=False,
                    **read_only,
                )
        kept = gr.State([], time_to_live=_KEEP)
        gr.on(
            [form.draw.click, form.prompt.submit],
            _drawing(renderer, form, kept),
            inputs={*form.inputs(), kept},
            outputs=[picture, heat, status, earlier, kept, form.seed],
            api_name="draw_form",
            api_visibility="private",
            show_progress_on=[picture, heat],
            **shared,
        )
        add_api(renderer, shared)
    return page


def _form(renderer: Renderer) -> Form:
    settings = renderer.params.evaluate
    people = []
    with gr.Tabs(elem_id="people"):
        for n in range(renderer.people):
            with gr.Tab(f"Person {n + 1}", id=n), gr.Row():
                people.append(_person(n, renderer.generator.takes_face_prompts))
    prompt = gr.Textbox(
        label="What the picture shows besides the faces",
        placeholder="a photo of a person wearing a red t-shirt, blue background",
        lines=2,
        max_length=MAX_TEXT,
        elem_id="prompt",
        submit_btn=False,
    )
    with gr.Accordion("Where each person stands", open=False, elem_id="places"):
        gr.Markdown("Without boxes the people stand side by side.")
        boxes = box_pad(renderer.people)
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**53 - 1, min_width=140, elem_id="seed")
        new_seed = gr.Checkbox(
            True, label="A new seed for every picture", info="Off: the same seed, the same picture.", elem_id="new-seed"
        )
    with gr.Accordion("More", open=False):
        negative = gr.Textbox(label="What the picture must not show", max_length=MAX_TEXT)
        most = renderer.params.serve.max_steps
        steps = gr.Slider(1, most, min(most, settings.steps), step=1, label="Denoising steps")
        guidance = gr.Slider(0, MAX_GUIDANCE, settings.guidance, step=0.5, label="Guidance by the text")
        scale = gr.Slider(0, MAX_SCALE, 1, step=0.05, label="Strength of the identity")
        with gr.Row():
            sides: dict[str, Any] = {"precision": 0, "minimum": 0, "step": 8, "min_width": 120}
            width, height = (
                gr.Number(0, label=name, info="In pixels, a multiple of 8; 0: as the base knows best.", **sides)
                for name in ("Width", "Height")
            )
            number = gr.Slider(1, min(4, renderer.params.serve.max_rows), 1, step=1, label="Number of pictures")
            sampler = gr.Dropdown([("of the base", ""), *SAMPLERS], value="", label="Sampler", min_width=140)
    draw = gr.Button("Draw", variant="primary", size="lg", elem_id="draw")
    return Form(
        tuple(people),
        prompt,
        boxes,
        seed,
        new_seed,
        negative,
        steps,
        guidance,
        scale,
        width,
        height,
        number,
        sampler,
        draw,
    )


def _person(n: int, takes_face_prompts: bool) -> Person:
    with gr.Column(scale=2, min_width=180):
        photo = gr.Image(
            label=f"Photo {n + 1}",
            buttons=["fullscreen"],
            type="filepath",
            # As uploaded: the picture is not decoded before its size is checked.
            image_mode=None,
            sources=["upload", "clipboard", "webcam"],
            height=230,
            elem_id=f"photo-{n + 1}",
        )
        photo.preprocess = _uploaded_file
        face = gr.Number(
            0, label="Which face", info="From the left, if it shows several.", precision=0, minimum=0, min_width=120
        )
    with gr.Column(scale=3, min_width=200):
        info = None if takes_face_prompts else "This adapter has no IMR: expression and pose stay as in the photo."
        kept = ("as in the photo", "")
        chips: dict[str, Any] = {"value": "", "interactive": takes_face_prompts, "elem_classes": "chips"}
        expression = gr.Radio(
            [kept, *EXPRESSIONS], label="Expression", info=info, elem_id=f"expression-{n + 1}", **chips
        )
        poses = [(pose.replace("_", " "), pose) for pose in POSES]
        pose = gr.Radio([kept, *poses], label="Head pose, seen from you", elem_id=f"pose-{n + 1}", **chips)
    return Person(photo, face, expression, pose)


def _uploaded_file(upload: Any) -> str | None:
    """Return the path of an upload; Gradio would open the picture, and refuse some that the project can decode."""
    return None if upload is None else upload.path


def _examples(form: Form, examples: Sequence[Example]) -> None:
    """Add a button for each example, which fills the form."""
    outputs = [*form.faces(), form.prompt, form.boxes]

    def filling(example: Example) -> Callable[[], list[Any]]:
        def fill() -> list[Any]:
            faces: list[Any] = []
            for n in range(len(form.people)):
                there = n < len(example.photos)
                faces += (
                    [example.photos[n], 0, example.expressions[n], example.poses[n]] if there else [None, 0, "", ""]
                )
            return [*faces, example.prompt, with_boxes(example.boxes)]

        return fill

    if examples:
        with gr.Row(elem_id="examples"):
            for example in examples:
                button = gr.Button(example.name, size="sm")
                button.click(
                    filling(example), outputs=outputs, queue=False, show_progress="hidden", api_visibility="private"
                )


def _drawing(renderer: Renderer, form: Form, kept: Any) -> Callable[..., Any]:
    """Return the function of the button, which gets the form's values by component."""

    def draw(values: dict[Any, Any], progress: Any = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        with as_gradio_errors():
            request = _request(renderer, form, values)
            progress(0, desc="analysing the photos")
            pictures = list(values[kept])
            face_prompts = "; ".join(text for text in request.face_prompts if text)
            # The first of several pictures is drawn last, to be shown.
            for one in reversed(request.pictures()):
                drawn = renderer.draw(one, lambda done, of: progress((done, of), desc="drawing", unit="steps"))
                caption = f"seed {one.seed}" + (f" · {face_prompts}" if face_prompts else "")
                pictures = [(str(drawn.picture), caption), *pictures][:_EARLIER]
            if drawn.note:
                gr.Warning(_escape(drawn.note), duration=None)
            # Gradio has deleted the files that are too old.
            pictures = [(file, text) for file, text in pictures if Path(file).is_file()]
            status = f"Seed **{request.seed}**, {drawn.seconds:.1f} s, {_escape(renderer.version)}"
            return drawn.picture, drawn.heat, status, pictures, pictures, request.seed

    return draw


def _request(renderer: Renderer, form: Form, values: dict[Any, Any]) -> DrawRequest:
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
    photos = ((f"person {n + 1}", Path(values[person.photo])) for n, person in zip(there, faces, strict=True))
    return read_request(
        (Reference(name, file.read_bytes()) for name, file in photos),
        {
            "prompt": values[form.prompt] or "",
            "face_prompts": face_prompts if any(face_prompts) else None,
            "boxes": boxes_of(values[form.boxes], there),
            "faces": [values[person.face] for person in faces],
            "seed": seed,
            **{name: values[getattr(form, name)] for name in ("width", "height", "number", "sampler")},
        },
        renderer.params.serve,
        negative_prompt=values[form.negative],
        steps=values[form.steps],
        guidance=values[form.guidance],
        scale=values[form.scale],
    )


def face_prompt(expression: str | None, pose: str | None) -> str:
    """Return the face prompt for the two chosen chips; an empty chip leaves expression or pose as in the photo."""
    return ", ".join(text for text in (expression, POSE_PHRASES[pose] if pose else None) if text)


def _escape(text: str) -> str:
    """Return `text` with the characters escaped that Markdown would interpret."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!" else letter for letter in text)
