"""Sheets of shuffled pictures for human readers, the key to each sheet, and a reader's score.

Judge networks see only what they were trained on; the sheets measure whether people recognise identity and expression.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS
from pipelines.core.errors import UserError
from pipelines.core.words import counted
from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.photos import Photo
from pipelines.evaluation.plan import multi_spec_of, spec_of
from pipelines.evaluation.sampling import CellRenderer
from pipelines.evaluation.variants import MODEL

KEY, READING, MATCHING, EXPRESSION = "key.json", "reading.json", "matching.png", "expressions.png"
# Pictures of two people: who is who is asked by the first name, and what everybody shows by the second.
PAIRS, PAIR_EXPRESSIONS = "pairs.png", "pair_expressions.png"
_SIDE = 160
_COLUMNS, _LETTERS = 8, 26


@dataclass(frozen=True)
class Sheet:
    """Rows of (title, pictures, labels), and the right answer for each number that is asked about.

    Without rows, it asks something else about the sheet before it.
    """

    rows: tuple[tuple[str, Sequence[np.ndarray], Sequence[str]], ...]
    answers: Mapping[str, str]


def choose_cells(questions: EvaluationSet, people: int, each: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the cells to match with references (one per person) and to name (`each` per expression).

    Raises UserError where there are too few held-out people, or too few frontal cells of an expression.
    """
    if len(questions.people) < people:
        most = len(questions.people)
        raise UserError(
            f"a sheet of {counted(people, 'person', 'people')}: the evaluation takes {most} of those held out; "
            f"--people {most} at most, or a larger evaluate.people (--set) if more are held out"
        )
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
            raise UserError(
                f"{counted(each, 'face')} of every expression: the evaluation asks only for "
                f"{counted(len(mine), f'{name} face')} toward the camera; --each {len(mine)} at most, or a larger "
                "evaluate.people (--set)"
            )
        asked += rng.choice(mine, each, replace=False).tolist()
    return matched, [int(number) for number in rng.permutation(asked)]


def make_sheets(
    questions: EvaluationSet, photos: Mapping[str, Photo], renderer: CellRenderer, *, people: int, each: int, seed: int
) -> dict[str, Sheet]:
    """Draw the cells as the evaluation does and return the sheets by file name; `seed` determines cells and order."""
    matched, asked = choose_cells(questions, people, each, seed)
    tokens = renderer.tokens(questions, photos)
    drawn = renderer.draw([spec_of(questions, tokens, MODEL, number) for number in (*matched, *asked)])
    pictures = [one.image for one in drawn]
    order = np.random.default_rng([seed, 1]).permutation(people).tolist()
    letters = [chr(ord("A") + place) for place in range(people)]
    references = [photos[questions.people[questions.cells[number].person].reference].image for number in matched]
    numbers = [str(place + 1) for place in range(len(pictures))]
    matching = Sheet(
        (
            ("One photo of each person", references, letters),
            ("Generated: who is who?", [pictures[place] for place in order], numbers[:people]),
        ),
        {number: letters[place] for number, place in zip(numbers, order, strict=False)},
    )
    expressions = Sheet(
        ((f"Generated: which of {', '.join(EXPRESSIONS)}?", pictures[people:], numbers[: len(asked)]),),
        {number: questions.cells[cell].expression for number, cell in zip(numbers, asked, strict=False)},
    )
    return {MATCHING: matching, EXPRESSION: expressions}


def pair_sheets(
    questions: EvaluationSet, photos: Mapping[str, Photo], renderer: CellRenderer, *, pairs: int, seed: int
) -> dict[str, Sheet]:
    """Draw pictures of two people as the evaluation does; return one sheet that is asked two things, by file name.

    Every face has a number, from left to right. Raises UserError where the evaluation asks for fewer such pictures, or
    for more people than there are letters.
    """
    asked = questions.multi_of(2)
    if len(asked) < pairs:
        raise UserError(
            f"{counted(pairs, 'picture')} of two people: the evaluation asks for {len(asked)}; --pairs {len(asked)}, "
            "or a larger evaluate.several_people.two (--set)"
        )
    rng = np.random.default_rng([seed, 2])
    numbers = rng.choice(asked, pairs, replace=False).tolist()
    people = rng.permutation(sorted({person for number in numbers for person in questions.multi_cells[number].people}))
    if len(people) > _LETTERS:
        raise UserError(
            f"{len(people)} people in the pictures of two: {_LETTERS} letters at most; lower --pairs, or "
            "evaluate.people (--set)"
        )
    letters = {int(person): chr(ord("A") + place) for place, person in enumerate(people)}
    tokens = renderer.tokens(questions, photos)
    drawn = renderer.draw([multi_spec_of(questions, tokens, MODEL, number) for number in numbers])
    faces = [
        (letters[person], expression)
        for number in numbers
        for person, expression in zip(
            questions.multi_cells[number].people, questions.multi_cells[number].expressions, strict=True
        )
    ]
    who = Sheet(
        (
            (
                "One photo of each person",
                [photos[questions.people[person].reference].image for person in letters],
                list(letters.values()),
            ),
            (
                f"Generated: who is who, and which of {', '.join(EXPRESSIONS)}?",
                [one.image for one in drawn],
                [f"{2 * place + 1} and {2 * place + 2}" for place in range(pairs)],
            ),
        ),
        {str(number): letter for number, (letter, _) in enumerate(faces, 1)},
    )
    return {PAIRS: who, PAIR_EXPRESSIONS: Sheet((), {str(n): shown for n, (_, shown) in enumerate(faces, 1)})}


def write_sheets(sheets: Mapping[str, Sheet], out: Path, made_from: Mapping[str, Any]) -> None:
    """Write every sheet as a picture, and as JSON the key (not for the reader) and the settings `made_from`."""
    out.mkdir(parents=True, exist_ok=True)
    for name, sheet in sheets.items():
        if sheet.rows:
            _draw_sheet(sheet, out / name)
    key = {Path(name).stem: dict(sheet.answers) for name, sheet in sheets.items()}
    for name, values in ((KEY, key), (READING, made_from)):
        (out / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def score(key: Mapping[str, Mapping[str, str]], answers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the number and share of right answers for every sheet.

    Raises UserError where a number is not answered, and where an answer to expressions is not one of the seven.
    """
    scores: dict[str, dict[str, Any]] = {}
    for sheet, wanted in key.items():
        given = answers.get(sheet) if isinstance(answers, Mapping) else None
        missing = sorted(set(wanted) - set(given if isinstance(given, Mapping) else ()), key=int)
        if not isinstance(given, Mapping) or missing:
            raise UserError(f"answers to {sheet}: {', '.join(missing[:8])} missing; expected one for each number")
        unknown = {str(given[name]).strip().lower() for name in wanted} - {"", *EXPRESSIONS}
        if unknown and sheet in {Path(EXPRESSION).stem, Path(PAIR_EXPRESSIONS).stem}:
            raise UserError(
                f"answers to {sheet}: {', '.join(sorted(unknown))}; expected {', '.join(EXPRESSIONS)}, or an empty "
                "text where a reader is not sure"
            )
        right = [name for name, answer in wanted.items() if str(given[name]).strip().lower() == answer.lower()]
        scores[sheet] = {"right": len(right), "of": len(wanted), "share": round(len(right) / len(wanted), 4)}
    return scores


def _draw_sheet(sheet: Sheet, file: Path) -> None:
    from matplotlib.figure import Figure

    lines = []
    for title, pictures, labels in sheet.rows:
        # A picture that is wider than high has the place of two.
        columns = _COLUMNS // 2 if pictures[0].shape[1] > pictures[0].shape[0] else _COLUMNS
        lines += [
            (title if start == 0 else "", columns, pictures[start : start + columns], labels[start : start + columns])
            for start in range(0, len(pictures), columns)
        ]
    inches = _SIDE / 100
    figure = Figure(figsize=(_COLUMNS * inches, len(lines) * (inches + 0.55)), dpi=100, layout="constrained")
    parts = figure.subfigures(len(lines), 1, squeeze=False)[:, 0]
    for part, (title, columns, pictures, labels) in zip(parts, lines, strict=True):
        for place, axis in enumerate(part.subplots(1, columns)):
            axis.set_axis_off()
            if place < len(pictures):
                axis.imshow(pictures[place], interpolation="bicubic")
                axis.set_title(labels[place], fontsize=11)
        # The title belongs to the whole row: above one column it would widen that column.
        part.suptitle(title or " ", x=0.005, ha="left", fontsize=11, weight="bold")
    figure.savefig(file, metadata={"Software": None})
