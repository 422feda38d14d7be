"""Blind reading: sheets of shuffled pictures that tell nothing but themselves, their key, and the reader's score.

Judge networks read what they were trained to read; whether people can say who is who, and who is sad, is asked here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS
from pipelines.core.errors import UserError
from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.photos import Photo
from pipelines.evaluation.plan import order_of
from pipelines.evaluation.sampling import CellRenderer
from pipelines.evaluation.variants import MODEL

KEY, READING, MATCHING, EXPRESSION = "key.json", "reading.json", "matching.png", "expressions.png"
_SIDE = 160
_COLUMNS = 8


@dataclass(frozen=True)
class Question:
    """A sheet: labelled pictures, and the answer to each of those that are asked about."""

    rows: tuple[tuple[str, tuple[np.ndarray, ...], tuple[str, ...]], ...]
    answers: Mapping[str, str]


def choose_cells(questions: EvaluationSet, people: int, each: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the cells to match with references, one a person, and those whose expression is asked, `each` of seven.

    Raises UserError where fewer people, or frontal cells of an expression, than asked for are held out.
    """
    if len(questions.people) < people:
        raise UserError(f"a sheet of {people} people: only {len(questions.people)} are held out; ask for fewer")
    rng = np.random.default_rng([seed, 0])
    graded = [number for number, cell in enumerate(questions.cells) if cell.graded and cell.seed == 0]
    by_person = {
        person: [number for number in graded if questions.cells[number].person == person]
        for person in rng.choice(len(questions.people), people, replace=False).tolist()
    }
    matched = [int(rng.choice(numbers)) for numbers in by_person.values()]
    asked = []
    for name in EXPRESSIONS:
        mine = [n for n in graded if questions.cells[n].expression == name and questions.cells[n].pose == "front"]
        if len(mine) < each:
            raise UserError(f"{each} faces of every expression: only {len(mine)} cells ask for {name}; ask for fewer")
        asked += rng.choice(mine, each, replace=False).tolist()
    return matched, [int(number) for number in rng.permutation(asked)]


def make_sheets(
    questions: EvaluationSet, photos: Mapping[str, Photo], renderer: CellRenderer, *, people: int, each: int, seed: int
) -> dict[str, Question]:
    """Draw the cells as the evaluation does and return the sheets by file name; another seed is another reading."""
    matched, asked = choose_cells(questions, people, each, seed)
    tokens = renderer.tokens(questions, photos)
    drawn = renderer.draw([order_of(questions, tokens, MODEL, number) for number in (*matched, *asked)])
    pictures = [one.image for one in drawn]
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(people).tolist()
    letters = [chr(ord("A") + place) for place in range(people)]
    references = [photos[questions.people[questions.cells[number].person].reference].image for number in matched]
    numbers = [str(place + 1) for place in range(people)]
    matching = Question(
        (
            ("One photo of each person", tuple(references), tuple(letters)),
            ("Drawn: who is who?", tuple(pictures[place] for place in order), tuple(numbers)),
        ),
        {number: letters[place] for number, place in zip(numbers, order, strict=True)},
    )
    names = [str(place + 1) for place in range(len(asked))]
    expressions = Question(
        ((f"Drawn: which of {', '.join(EXPRESSIONS)}?", tuple(pictures[people:]), tuple(names)),),
        {name: questions.cells[number].expression for name, number in zip(names, asked, strict=True)},
    )
    return {MATCHING: matching, EXPRESSION: expressions}


def write_sheets(sheets: Mapping[str, Question], out: Path, made_from: Mapping[str, Any]) -> None:
    """Write every sheet as a picture, and beside them the key, which the reader must not see, and what made them."""
    out.mkdir(parents=True, exist_ok=True)
    for name, sheet in sheets.items():
        _paint(sheet, out / name)
    key = {Path(name).stem: dict(sheet.answers) for name, sheet in sheets.items()}
    for name, values in ((KEY, key), (READING, made_from)):
        (out / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def score(key: Mapping[str, Mapping[str, str]], answers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for every sheet how many of its answers are right.

    Raises UserError where a number is not answered, and where an answer to expressions is none of the seven.
    """
    found: dict[str, dict[str, Any]] = {}
    for sheet, wanted in key.items():
        given = answers.get(sheet) if isinstance(answers, Mapping) else None
        missing = sorted(set(wanted) - set(given if isinstance(given, Mapping) else ()), key=int)
        if not isinstance(given, Mapping) or missing:
            raise UserError(f"answers to {sheet}: {', '.join(missing[:8])} missing; expected one for each number")
        unknown = {str(given[name]).strip().lower() for name in wanted} - {"", *EXPRESSIONS}
        if unknown and sheet == Path(EXPRESSION).stem:
            raise UserError(
                f"answers to {sheet}: {', '.join(sorted(unknown))}; expected {', '.join(EXPRESSIONS)}, or nothing at "
                "all where a reader cannot tell"
            )
        right = [name for name, answer in wanted.items() if str(given[name]).strip().lower() == answer.lower()]
        found[sheet] = {"right": len(right), "of": len(wanted), "share": round(len(right) / len(wanted), 4)}
    return found


def _paint(sheet: Question, file: Path) -> None:
    from matplotlib.figure import Figure

    lines = [
        (title if start == 0 else "", pictures[start : start + _COLUMNS], labels[start : start + _COLUMNS])
        for title, pictures, labels in sheet.rows
        for start in range(0, len(pictures), _COLUMNS)
    ]
    inches = _SIDE / 100
    figure = Figure(figsize=(_COLUMNS * inches, len(lines) * (inches + 0.55)), dpi=100, layout="constrained")
    parts = figure.subfigures(len(lines), 1, squeeze=False)[:, 0]
    for part, (title, pictures, labels) in zip(parts, lines, strict=True):
        for place, axis in enumerate(part.subplots(1, _COLUMNS)):
            axis.set_axis_off()
            if place < len(pictures):
                axis.imshow(pictures[place], interpolation="bicubic")
                axis.set_title(labels[place], fontsize=11)
        # A column would be widened by a title of its own.
        part.suptitle(title or " ", x=0.005, ha="left", fontsize=11, weight="bold")
    figure.savefig(file, metadata={"Software": None})
