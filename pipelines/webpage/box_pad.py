"""The picture on which the user drags a box for each person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from pipelines.core.errors import UserError

_HERE = Path(__file__).parent


def box_pad(people: int) -> Any:
    """Return the component; its value is {"boxes": [[y0, x0, y1, x1] or None, …], "active": index of a person, …}.

    `aspect` is width over height of what is drawn on, `picture` a data URI of the last picture, or "".
    """
    return gr.HTML(
        with_boxes(()),
        html_template=_HERE.joinpath("box_pad.html").read_text(encoding="utf-8"),
        css_template=_HERE.joinpath("box_pad.css").read_text(encoding="utf-8"),
        js_on_load=_HERE.joinpath("box_pad.js").read_text(encoding="utf-8"),
        people=people,
        elem_id="boxes",
        label="Boxes",
    )


def with_boxes(boxes: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the value that shows `boxes` (y0, x0, y1, x1)."""
    return {"boxes": [list(box) for box in boxes], "active": 0, "aspect": 1.0, "picture": ""}


def with_picture(value: Any, file: Path) -> Any:
    """Return `value` with a drawn picture under the boxes, so that they can be moved to where the faces are."""
    import numpy as np
    from PIL import Image

    from pipelines.evaluation.pictures import data_uri

    if not isinstance(value, dict):
        return value
    image = Image.open(file).convert("RGB")
    return {**value, "aspect": image.width / image.height, "picture": data_uri(np.asarray(image))}


def with_shape(value: Any, width: float | None, height: float | None) -> Any:
    """Return `value` in the shape of the requested picture, without a picture of another shape."""
    aspect = width / height if width and height else 1.0
    if not isinstance(value, dict) or abs(value.get("aspect", 0.0) - aspect) < 0.01:
        return value
    return {**value, "aspect": aspect, "picture": ""}


def boxes_of(value: Any, positions: Sequence[int]) -> list[Any] | None:
    """Return the boxes of the people at `positions` (from 0), or None where none of them has one.

    Raises UserError where some have a box and others none. `read_request` checks the numbers in a box.
    """
    boxes = value.get("boxes") if isinstance(value, dict) else None
    if not isinstance(boxes, list):
        return None
    found = [boxes[position] if position < len(boxes) else None for position in positions]
    if not any(found):
        return None
    missing = [f"person {position + 1}" for position, box in zip(positions, found, strict=True) if not box]
    if missing:
        raise UserError(f"{', '.join(missing)}: no box, but others have one; drag one, or press No boxes")
    return found
