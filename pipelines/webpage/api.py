"""The page's API: `/draw` returns a picture for uploaded references; `/model` names the model that draws."""

import os
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from model.face.face import MAX_REFERENCES
from pipelines.core.errors import UserError
from pipelines.serving.motion_request import listed
from pipelines.serving.request import Reference, References, read_request
from pipelines.webpage.drawing import Renderer
from pipelines.webpage.errors import as_gradio_errors

# Gradio reads the annotations at run time, so this module must not import annotations from __future__.


def add_api(renderer: Renderer, shared: dict[str, Any]) -> None:
    """Add the endpoints to the Blocks being built; `shared` holds the event options that the page uses, too."""

    def model() -> str:
        """Return the version of the model that draws."""
        return renderer.version

    def draw(  # noqa: PLR0917
        references: list[FileData | list[FileData]],
        prompt: str,
        face_prompts: list[str] | None = None,
        boxes: list[list[float]] | None = None,
        seed: int = 0,
        faces: list[int | list[int]] | None = None,
        negative_prompt: str = "",
        width: int = 0,
        height: int = 0,
        sampler: str = "",
        strength: list[float | None] | None = None,
        yaw: list[float | None] | None = None,
        pitch: list[float | None] | None = None,
        roll: list[float | None] | None = None,
        driving: list[FileData | None] | None = None,
        driving_faces: list[int] | None = None,
    ) -> tuple[FileData, FileData, dict]:
        """Draw the people of the references; return the picture, the gate's heat map, and seed, model and seconds.

        `references`: one per person, or a list of several of one person. `face_prompts`, `boxes` (y0, x0, y1, x1 in [0,
        1]): none, or one per person. `faces` (from the left, 0: the only one): none, or as `references`. `width`,
        `height`: 0 for what the base knows best. `strength` (0 to 1.5), `yaw`, `pitch`, `roll` (degrees), `driving`
        (photos whose expression and pose are taken), `driving_faces` (as `faces`): none, or one per person, null for
        nothing. The same request gives the same bytes.
        """
        with as_gradio_errors():
            if not isinstance(references, list):
                raise UserError("references: expected a list of uploaded pictures, one per person")
            if not 1 <= len(references) <= renderer.people:
                raise UserError(f"references: {len(references)} people; expected 1 to {renderer.people}")
            uploads = [_read_person(given, n, renderer) for n, given in enumerate(references, 1)]
            texts: dict[str, Any] = {"prompt": prompt, "face_prompts": face_prompts, "boxes": boxes, "seed": seed}
            texts |= {"faces": faces, "negative_prompt": negative_prompt, "sampler": sampler}
            texts |= {"width": width, "height": height}
            texts |= {"strength": strength, "yaw": yaw, "pitch": pitch, "roll": roll, "driving_faces": driving_faces}
            drivers = enumerate(listed(driving, "driving")[: renderer.people + 1], 1)
            photos = [one and _read_upload(one, f"driving photo of person {n}", renderer) for n, one in drivers]
            request = read_request(uploads, texts, renderer.params.serve, driving=photos)
            drawn = renderer.draw(request)
            made = {"seed": request.seed, "model": renderer.version, "seconds": round(drawn.seconds, 3)}
            made |= {"note": drawn.note} if drawn.note else {}
            return _file_data(drawn.picture), _file_data(drawn.heat), made

    gr.api(draw, api_name="draw", **shared)
    gr.api(model, api_name="model", queue=False)


def _read_person(given: Any, number: int, renderer: Renderer) -> References:
    """Read the upload of person `number`, or a list of several; raises as `_read_upload`."""
    if not isinstance(given, list):
        return _read_upload(given, f"reference {number}", renderer)
    if len(given) > MAX_REFERENCES:
        raise UserError(f"person {number}: {len(given)} references; expected 1 to {MAX_REFERENCES}")
    return tuple(_read_upload(one, f"reference {n} of person {number}", renderer) for n, one in enumerate(given, 1))


def _read_upload(file: Any, name: str, renderer: Renderer) -> Reference:
    """Read a file that was uploaded to this page; UserError for any other path."""
    path = file.get("path") if isinstance(file, dict) else None
    if not isinstance(path, str) or "\0" in path:
        raise UserError(f"{name}: no uploaded file; upload it first, and send what the upload returned")
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(renderer.folder) or not real.is_file():
        raise UserError(f"{name}: no such upload; files are removed after an hour, upload it again")
    if real.stat().st_size > renderer.params.serve.max_upload_mb * 2**20:
        raise UserError(f"{name}: more than {renderer.params.serve.max_upload_mb} MB; send a smaller picture")
    return Reference(name, real.read_bytes())


def _file_data(file: Path) -> Any:
    return FileData(path=str(file), orig_name=file.name, mime_type="image/png").model_dump()
