"""The contact sheet: rows of one person and rows of two, drawn by the model and by what it is compared with."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipelines.evaluation.plots import STYLE
from pipelines.evaluation.protocol import EvaluationResult
from pipelines.evaluation.report_pictures import shared_cell
from pipelines.evaluation.variants import HEADINGS, MODEL, SHIPPED, TEXT_ONLY, WITHOUT_GATE, WITHOUT_IMR

# Rows of one person, and of two.
_ROWS = 3
_SHOWN = (MODEL, SHIPPED, WITHOUT_GATE, WITHOUT_IMR, TEXT_ONLY)
_MOTIONS = (("happy", "front"), ("neutral", "left"))
_INCHES, _DPI = 1.15, 120

# A picture and the text above it.
Tile = tuple[np.ndarray, str]


def contact_sheet(result: EvaluationResult) -> str:
    """Return a PNG as a data URI: the first people of the set, alone and in twos, each beside the references.

    The first pictures are shown, not the best ones. The left of each row says what was asked.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = sheet_rows(result)
    columns = max(len(tiles) for _, tiles in rows)
    with mpl.rc_context({**STYLE, "font.size": 6}):
        figure = Figure(figsize=(columns * _INCHES + 1, len(rows) * (_INCHES + 0.2)), dpi=_DPI, layout="tight")
        grid: Any = figure.subplots(len(rows), columns, squeeze=False)
        for axes, (asked, tiles) in zip(grid, rows, strict=True):
            for place, axis in enumerate(axes):
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                if place < len(tiles):
                    image, title = tiles[place]
                    axis.imshow(image, interpolation="lanczos")
                    axis.set_title(title, fontsize=6, pad=2)
            axes[0].set_ylabel(asked, rotation=0, ha="right", va="center", fontsize=6)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode('ascii')}"


def sheet_rows(result: EvaluationResult) -> list[tuple[str, list[Tile]]]:
    """Return the rows of the sheet: what was asked, and the pictures from left to right."""
    return [*_rows_of_one(result), *_rows_of_two(result)]


def _rows_of_one(result: EvaluationResult) -> Iterator[tuple[str, list[Tile]]]:
    questions = result.questions
    for index, person in enumerate(questions.people[:_ROWS]):
        shared = shared_cell(result, index)
        tiles = [(result.photos[person.reference].image, "reference")]
        tiles += [
            (result.drawn[result.plan.cells[variant][shared]].image, HEADINGS[variant])
            for variant in _SHOWN
            if shared in result.plan.cells.get(variant, ())
        ]
        for number, cell in enumerate(questions.cells):
            asked = cell.person == index and cell.graded and cell.seed == 0
            if asked and (cell.expression, cell.pose) in _MOTIONS and number != shared:
                shown = cell.expression if cell.expression != "neutral" else cell.pose
                picture = result.drawn[result.plan.cells[MODEL][number]].image
                tiles.append((picture, f"{HEADINGS[MODEL]}: {shown}"))
        yield _lines(questions.cells[shared].face_prompt), tiles


def _rows_of_two(result: EvaluationResult) -> Iterator[tuple[str, list[Tile]]]:
    questions = result.questions
    pairs = [number for number, cell in enumerate(questions.multi_cells) if len(cell.people) == 2]
    for number in pairs[:_ROWS]:
        cell = questions.multi_cells[number]
        references = (result.photos[questions.people[person].reference].image for person in cell.people)
        tiles = list(zip(references, ("left", "right"), strict=True))
        tiles += [
            (result.drawn[result.plan.multi[variant][number]].image, HEADINGS[variant])
            for variant in _SHOWN
            if number in result.multi.get(variant, ())
        ]
        left, right = cell.face_prompts
        yield f"left:\n{_lines(left)}\nright:\n{_lines(right)}", tiles


def _lines(face_prompt: str) -> str:
    return face_prompt.replace(", ", ",\n")
