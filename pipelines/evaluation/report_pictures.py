"""The pictures of the report: of each person, of several people, and where the gate opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.words import counted
from pipelines.evaluation.belonging import NOT_MEASURABLE
from pipelines.evaluation.intervals import NotMeasurable
from pipelines.evaluation.multi_scoring import ScoredPicture
from pipelines.evaluation.pictures import data_uri, heat
from pipelines.evaluation.protocol import EvaluationResult
from pipelines.evaluation.results import not_measurable
from pipelines.evaluation.variants import (
    CEILING,
    FLOOR,
    MODEL,
    SHIPPED,
    TEXT_ONLY,
    TITLES,
    TRUE_TOKENS,
    WITHOUT_GATE,
    WITHOUT_IMR,
)

_SHOWN_GATES = 12
_PLACES = {"yaw_mae": 1, "kid": 4}


def number_text(value: float, metric: str = "") -> str:
    """Return a value as text with three decimals (0.420, −0.050), degrees with one, KID with four."""
    return f"{value:.{_PLACES.get(metric, 3)}f}".replace("-", "−")


def drawn_tile(result: EvaluationResult, variant: str, cell_number: int, title: str) -> dict[str, Any]:
    """Return the tile of a drawn picture: of a variant, by the number of its cell."""
    picture = result.plan.cells[variant][cell_number]
    cell, readings = result.questions.cells[cell_number], result.readings
    found = bool(readings.found[picture])
    read_expression = EXPRESSIONS[readings.expression[picture]] if found else "no face"
    read_pose = POSES[readings.pose[picture]] if found else "no face"
    row = int(np.flatnonzero(result.scores[variant].cells == cell_number)[0])
    similarity = float(result.scores[variant].columns["id_similarity"][row])
    verdicts: list[dict[str, Any]] = [
        {"kind": kind, "read": read.replace("_", " "), "right": read == asked}
        for kind, read, asked in (
            ("expression", read_expression, cell.expression),
            ("pose", read_pose, cell.pose),
        )
        if not_measurable(f"{kind}_accuracy", result.unfit) is None
    ]
    read = ", ".join(one["read"] for one in verdicts) or NOT_MEASURABLE
    hint = (
        f"asked: {cell.face_prompt}; read: {read if found else 'no face'}; similarity {_likeness(result, similarity)}"
    )
    note = _likeness(result, similarity) if found else "no face"
    return _tile(result.drawn[picture].image, title, hint, note, verdicts if found else ())


def _likeness(result: EvaluationResult, similarity: float) -> str:
    """Return the cosine `similarity` to a person as text on the scale of s, where its judge can judge."""
    floor, ceiling = (result.metrics[end]["id_similarity"] for end in (FLOOR, CEILING))
    if isinstance(floor, NotMeasurable) or isinstance(ceiling, NotMeasurable):
        return NOT_MEASURABLE
    return f"s {(similarity - floor.value) / (ceiling.value - floor.value):.2f}".replace("-", "−")


def photo_tile(result: EvaluationResult, image_id: str, title: str) -> dict[str, Any]:
    """Return the tile of a real photo."""
    photo = result.photos[image_id]
    shows = ", ".join(
        word.replace("_", " ") if word else "open" for word in (photo.record.expression, photo.record.pose)
    )
    return _tile(photo.image, title, f"real photo: {shows}", shows)


def _tile(
    image: np.ndarray, title: str, hint: str, note: str, verdicts: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    return {"image": data_uri(image), "title": title, "hint": hint, "note": note, "verdicts": verdicts}


def person_pictures(result: EvaluationResult, index: int) -> dict[str, Any]:
    """Return what the report shows of a person: photos, a drawing by each variant, and every expression and pose."""
    questions = result.questions
    person = questions.people[index]
    cells = {
        (cell.expression, cell.pose): number
        for number, cell in enumerate(questions.cells)
        if cell.person == index and cell.graded and cell.seed == 0
    }
    shared = shared_cell(result, index)
    side_by_side = [
        drawn_tile(result, variant, shared, TITLES[variant])
        for variant in (MODEL, SHIPPED, WITHOUT_GATE, WITHOUT_IMR, TRUE_TOKENS, TEXT_ONLY)
        if shared in result.plan.cells.get(variant, ())
    ]
    true_photo = questions.cells[shared].true_photo
    expressions = [drawn_tile(result, MODEL, cells[name, "front"], name) for name in EXPRESSIONS]
    poses = [drawn_tile(result, MODEL, cells["neutral", pose], pose.replace("_", " ")) for pose in POSES]
    return {
        "number": index + 1,
        "identity": person.identity,
        "reference": photo_tile(result, person.reference, "reference"),
        "other": photo_tile(result, person.others[0], "another real photo"),
        "asked": questions.cells[shared].face_prompt,
        "variants": side_by_side,
        "true_photo": photo_tile(result, true_photo, "real, as asked") if true_photo else None,
        "expressions": expressions,
        "poses": poses,
        "together": _together(result, index),
        "prompt": questions.prompt_of(questions.cells[cells["neutral", "front"]]).text,
        "pose_prompt": questions.prompt_of(questions.cells[cells["neutral", "left"]]).text,
    }


def _together(result: EvaluationResult, index: int) -> list[dict[str, Any]]:
    """Return the tile of the person's first picture with others; empty without one."""
    for number, cell in enumerate(result.questions.multi_cells):
        if index in cell.people:
            mine = cell.people.index(index)
            others = ", ".join(str(person + 1) for person in cell.people if person != index)
            own = _likeness(result, result.multi[MODEL][number].score.own[mine])
            hint = f"asked: {cell.face_prompts[mine]}; similarity {own}"
            picture = result.drawn[result.plan.multi[MODEL][number]].image
            return [_tile(picture, f"number {mine + 1} from the left, beside {others}", hint, own)]
    return []


def shared_cell(result: EvaluationResult, index: int) -> int:
    """Return the person's cell that the most variants have drawn; of several, one that is not neutral."""

    def rank(number: int) -> tuple[int, bool, int]:
        variants = sum(number in cells for cells in result.plan.cells.values())
        return -variants, result.questions.cells[number].expression == "neutral", number

    mine = [number for number, cell in enumerate(result.questions.cells) if cell.person == index and cell.graded]
    return min(mine, key=rank)


def several_pictures(result: EvaluationResult, number: int) -> dict[str, Any]:
    """Return a row of one picture of several people: references, and what every variant drew, with each face."""
    cell = result.questions.multi_cells[number]
    tiles = []
    for variant, pictures in result.multi.items():
        if number not in pictures:
            continue
        score, found = pictures[number].score, len(pictures[number].faces.found)
        tiles.append(
            {
                "title": TITLES[variant],
                "image": data_uri(result.drawn[result.plan.multi[variant][number]].image),
                "faces": [
                    _face(result, pictures[number], place, cell.people[place] + 1) for place in range(len(score.own))
                ],
                "note": f"{counted(found, 'face')}; own {_likeness(result, score.multi_id_similarity)}, "
                f"other {_likeness(result, score.leakage)}",
            }
        )
    return {
        "prompt": result.questions.multi_prompt_of(cell).text,
        "references": [
            {**photo_tile(result, result.questions.people[person].reference, f"person {person + 1}"), "note": text}
            for person, text in zip(cell.people, cell.face_prompts, strict=True)
        ],
        "asked": [_percent(x0, y0, x1, y1) for y0, x0, y1, x1 in cell.boxes],
        "tiles": tiles,
    }


def _face(result: EvaluationResult, picture: ScoredPicture, place: int, person: int) -> dict[str, Any]:
    """Return the verdict on the face of one person: its box, likeness, and whether expression and pose are as asked."""
    face, faces = picture.score.assigned[place], picture.faces
    if face < 0:
        return {"person": person, "box": None, "own": "no face", "verdicts": []}
    verdicts = [
        {"kind": kind, "read": names[read[face]].replace("_", " "), "right": bool(right)}
        for kind, names, read, right in (
            ("expression", EXPRESSIONS, faces.expression, picture.score.shows[place, 0]),
            ("pose", POSES, faces.pose, picture.score.shows[place, 1]),
        )
        if not_measurable(f"multi_{kind}_accuracy", result.unfit) is None
    ]
    own = _likeness(result, picture.score.own[place])
    return {"person": person, "box": _percent(*faces.boxes[face]), "own": own, "verdicts": verdicts}


def _percent(x0: float, y0: float, x1: float, y1: float) -> str:
    left, top, width, height = (f"{100 * value:.1f}%" for value in (x0, y0, x1 - x0, y1 - y0))
    return f"left:{left};top:{top};width:{width};height:{height}"


def gate_maps(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return the pictures of the first people with the heat maps of the gate."""
    shown = []
    for index in range(min(len(result.questions.people), _SHOWN_GATES)):
        picture = result.plan.cells[MODEL][shared_cell(result, index)]
        drawn, found = result.drawn[picture], bool(result.readings.found[picture])
        if drawn.gate is not None:
            shown.append(
                {
                    "person": index + 1,
                    "image": data_uri(drawn.image),
                    "heat": data_uri(heat(drawn.gate, drawn.image)),
                    "box": _percent(*result.readings.boxes[picture]) if found else None,
                }
            )
    return shown
