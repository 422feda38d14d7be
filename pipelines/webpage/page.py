"""The page: its layout, and what its buttons do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from pipelines.webpage.api import add_api
from pipelines.webpage.box_pad import with_picture
from pipelines.webpage.drawing import Drawing, Renderer
from pipelines.webpage.errors import PageBlocks, as_gradio_errors
from pipelines.webpage.examples import Example
from pipelines.webpage.form import Form, build_form, request_of
from pipelines.webpage.history import KeptPicture, with_pictures, write_sheet

# Gradio deletes files older than _KEEP every _SWEEP seconds.
_SWEEP, _KEEP = 300, 3600
# Gradio's default buttons include one that shares a picture on a website.
_BUTTONS = ["download", "fullscreen"]


def build(renderers: Sequence[Renderer], examples: Sequence[Example]) -> Any:
    """Return the page as Gradio's Blocks, its API included; the examples lie outside the renderers' folder.

    Every request is drawn by all of `renderers`, whose pictures stand side by side; the API has the first one.
    """
    # One picture at a time for page and API together.
    shared = {"concurrency_id": "drawing", "concurrency_limit": 1}
    with PageBlocks(title="DynamicID", analytics_enabled=False, delete_cache=(_SWEEP, _KEEP)) as page:
        versions = " beside ".join(f"**{_escape(one.version)}**" for one in renderers)
        gr.Markdown(
            "# DynamicID\nPictures of one person or several, from one photo each or more, with the expression and head "
            f"pose that you choose for everybody. Model: {versions}",
            elem_id="head",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                form = build_form(
                    renderers[0].params,
                    renderers[0].generator.sampling,
                    min(one.people for one in renderers),
                    takes_face_prompts=all(one.generator.takes_face_prompts for one in renderers),
                    examples=examples,
                )
            with gr.Column(scale=5, min_width=320):
                status = gr.Markdown("Upload a photo of each person, or try drawn people.", elem_id="status")
                shown: dict[str, Any] = {"buttons": _BUTTONS, "format": "png", "interactive": False}
                pictures = gr.Gallery(label="Pictures", elem_id="pictures", columns=1, height="auto", **shown)
                with gr.Accordion("Where the identity is applied", open=False):
                    heat = gr.Gallery(label="Heat maps", elem_id="heat", columns=2, height="auto", **shown)
                earlier = gr.Gallery(
                    label="Pictures of this visit",
                    elem_id="earlier",
                    columns=3,
                    fit_columns=False,
                    height="auto",
                    **shown,
                )
                sheet = gr.DownloadButton("Download all of them as a page", interactive=False, elem_id="sheet")
        kept = gr.State([], time_to_live=_KEEP)
        gr.on(
            [form.draw.click, form.prompt.submit],
            _drawing(renderers, form, kept),
            inputs={*form.inputs(), kept},
            outputs=[pictures, heat, status, earlier, sheet, kept, form.seed, form.boxes],
            api_name="draw_form",
            api_visibility="private",
            show_progress_on=[pictures],
            **shared,
        )
        add_api(renderers[0], shared)
    return page


def _drawing(renderers: Sequence[Renderer], form: Form, kept: Any) -> Callable[..., Any]:
    """Return the function of the button, which gets the form's values by component."""

    def draw(values: dict[Any, Any], progress: Any = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        with as_gradio_errors():
            request = request_of(form, values, renderers[0].params)
            progress(0, desc="analysing the photos")
            drawn: list[tuple[KeptPicture, Drawing]] = []
            for one in request.pictures():
                for renderer in renderers:
                    done = renderer.draw(one, lambda step, of: progress((step, of), desc="drawing", unit="steps"))
                    kept_one = KeptPicture(
                        done.picture, renderer.version, one.seed, request.prompt, request.asked, done.size
                    )
                    drawn.append((kept_one, done))
            for note in dict.fromkeys(done.note for _, done in drawn if done.note):
                gr.Warning(_escape(note), duration=None)
            # Gradio has deleted the files that are too old.
            visit = with_pictures(values[kept], [one for one, _ in drawn])
            file = write_sheet(visit, renderers[0].folder)
            seconds = sum(done.seconds for _, done in drawn)
            versions = ", ".join(_escape(renderer.version) for renderer in renderers)
            return (
                gr.Gallery([(str(one.file), one.caption) for one, _ in drawn], columns=min(2, len(drawn))),
                [(str(done.heat), one.caption) for one, done in drawn],
                f"Seed **{request.seed}**, {seconds:.1f} s, {versions}",
                [(str(one.file), one.caption) for one in visit],
                gr.DownloadButton(value=None if file is None else str(file), interactive=file is not None),
                visit,
                request.seed,
                with_picture(values[form.boxes], drawn[0][0].file),
            )

    return draw


def _escape(text: str) -> str:
    """Return `text` with the characters escaped that Markdown would interpret."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!" else letter for letter in text)
