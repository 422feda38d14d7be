"""The report: one HTML page of metrics with intervals, and of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.pages import render_page
from pipelines.evaluation.belonging import NOT_MEASURABLE
from pipelines.evaluation.intervals import Interval, NotMeasurable
from pipelines.evaluation.multi_scoring import ScoredPicture
from pipelines.evaluation.paper import PUBLISHED, PaperResult
from pipelines.evaluation.pictures import data_uri, heat, svg_uri
from pipelines.evaluation.plots import forest, loss_curves, read_losses, sweep_plot
from pipelines.evaluation.protocol import CONFUSED, EvaluationResult
from pipelines.evaluation.results import Measured, not_measurable
from pipelines.evaluation.variants import (
    JUDGED_BY,
    MEANINGS,
    METRICS,
    MODEL,
    PAPER_MEANINGS,
    PAPER_METRICS,
    SHIPPED,
    TEXT_ONLY,
    TITLES,
    TRUE_TOKENS,
    WITHOUT_GATE,
    WITHOUT_IMR,
)

# The method's claims, each with the comparison and metric that test it, and the difference's sign if it holds.
EFFECTS: tuple[tuple[str, str, str, int], ...] = (
    ("The adapter draws the person", "model_minus_text_only", "id_similarity", 1),
    ("The gate keeps the picture closer to its text", "model_minus_without_gate", "prompt_accuracy", 1),
    ("The IMR improves expression", "model_minus_without_imr", "expression_accuracy", 1),
    ("The IMR improves pose", "model_minus_without_imr", "pose_accuracy", 1),
    ("The gate costs identity similarity", "model_minus_without_gate", "id_similarity", -1),
    ("The IMR costs identity similarity", "model_minus_without_imr", "id_similarity", -1),
    ("A perfect IMR would improve expression further", "true_tokens_minus_model", "expression_accuracy", 1),
    (
        "Of two people, each has the asked expression by the IMR",
        "model_minus_without_imr",
        "multi_expression_accuracy",
        1,
    ),
    ("Of two people, each has the asked pose by the IMR", "model_minus_without_imr", "multi_pose_accuracy", 1),
    ("Two people do what they were asked, not the other", "model_minus_text_only", "binding", 1),
)
_SWEPT = {"scale": "identity scale λ", "threshold": "gate threshold τ", "guidance": "guidance"}
_SHOWN_PEOPLE = 16
_AT_A_GLANCE: dict[str, str] = {TEXT_ONLY: "base model", MODEL: "just trained", SHIPPED: "shipped"}
_SHOWN_GATES = 12
_PLACES = {"yaw_mae": 1, "kid": 4}


def write_report(
    result: EvaluationResult,
    document: Mapping[str, Any],
    losses: Mapping[str, Path],
    mark: str = "",
    paper: PaperResult | None = None,
) -> str:
    """Return the page as HTML; `document` is the contents of `metrics.json`, `losses` the loss curves by stage.

    `mark` is the tag that names the metrics file (`metrics_mark`), `paper` the answers to the paper's questions.
    """
    curves = {name: read_losses(file) for name, file in losses.items()}
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        mark=mark,
        settings=document["settings"],
        evaluation_set=document["evaluation_set"],
        people_count=len(result.questions.people),
        summary=_summary(result),
        glance=_glance(result),
        table=_table(result),
        meanings=MEANINGS,
        effects=_effects(result),
        forests=_forests(result),
        people=[_person(result, index) for index in range(min(len(result.questions.people), _SHOWN_PEOPLE))],
        several=[_several(result, number) for number in range(len(result.questions.multi_cells))],
        gates=_gates(result),
        losses=svg_uri(loss_curves(curves)) if curves else None,
        confusions=_confusions(result),
        groups=_groups(result),
        sweeps=_sweeps(result),
        judges=_judges(result),
        paper=None if paper is None else _paper(paper),
    )


def number_text(value: float, metric: str = "") -> str:
    """Return a value as text with three decimals (0.420, −0.050), degrees with one, KID with four."""
    return f"{value:.{_PLACES.get(metric, 3)}f}".replace("-", "−")


def _cell(interval: Measured | None, metric: str) -> dict[str, str] | None:
    if interval is None:
        return None
    if isinstance(interval, NotMeasurable):
        return {"value": NOT_MEASURABLE, "range": "", "reason": interval.reason}
    low, high = number_text(interval.low, metric), number_text(interval.high, metric)
    return {"value": number_text(interval.value, metric), "range": f"{low} … {high}", "reason": ""}


def _summary(result: EvaluationResult) -> dict[str, str]:
    s = result.normalised
    model = result.metrics[MODEL]
    shown = {
        "s": s[MODEL]["id_similarity"],
        "s_text": s[TEXT_ONLY]["id_similarity"],
        "own": model["own_over_other"],
        # Plain prompts ask for no colours.
        **{name: model.get(f"{name}_accuracy") for name in ("expression", "pose", "prompt")},
    }
    return {name: cell["value"] for name, one in shown.items() if (cell := _cell(one, "")) is not None}


def _glance(result: EvaluationResult) -> dict[str, Any]:
    """Return for every person the reference, and one cell drawn by base model, adapter and shipped adapter."""
    variants = [variant for variant in _AT_A_GLANCE if variant in result.plan.cells]
    people = []
    for index, person in enumerate(result.questions.people[:_SHOWN_PEOPLE]):
        cell = _shared_cell(result, index)
        tiles = [_photo_tile(result, person.reference, "reference")]
        tiles += [_drawn_tile(result, variant, cell, _AT_A_GLANCE[variant]) for variant in variants]
        people.append({"number": index + 1, "asked": result.questions.cells[cell].face_prompt, "tiles": tiles})
    return {"people": people, "names": [_AT_A_GLANCE[variant] for variant in variants]}


def _table(result: EvaluationResult) -> dict[str, Any]:
    shown = [variant for variant in TITLES if variant in result.metrics]
    rows = [
        {
            "metric": "s",
            "meaning": "id_similarity on the scale from floor (0) to ceiling (1)",
            "cells": [_cell(result.normalised.get(variant, {}).get("id_similarity"), "s") for variant in shown],
        }
    ]
    rows += [
        {
            "metric": metric,
            "meaning": MEANINGS[metric],
            "cells": [_cell(result.metrics[variant].get(metric), metric) for variant in shown],
        }
        for metric in METRICS
        if any(metric in row for row in result.metrics.values())
    ]
    return {"titles": [TITLES[variant] for variant in shown], "rows": rows}


def _paper(paper: PaperResult) -> dict[str, Any]:
    """Return the table of the paper's metrics: for every variant the cells, each with the paper's own figure."""
    rows = [
        {
            "title": TITLES[variant],
            "cells": [
                {**(_cell(row[name], name) or {}), "published": number_text(PUBLISHED[variant][name])}
                for name in PAPER_METRICS
            ],
        }
        for variant, row in paper.metrics.items()
    ]
    prompts = [prompt.text for prompt in paper.questions.prompts.single]
    asked = {"pictures": paper.pictures, "prompts": prompts, "evaluation_set": paper.questions.hash}
    return {"meanings": PAPER_MEANINGS, "rows": rows, **asked}


def _effects(result: EvaluationResult) -> list[dict[str, str]]:
    shown = []
    for claim, comparison, metric, sign in EFFECTS:
        interval = result.comparisons[comparison].get(metric)
        if interval is None:
            continue
        if isinstance(interval, NotMeasurable):
            cell = _cell(interval, metric) or {}
            what = f"{metric}: {_difference(comparison)}"
            shown.append({"claim": claim, "what": what, "verdict": NOT_MEASURABLE, "kind": "open", **cell})
            continue
        kind, verdict = {
            sign: ("yes", "shown"),
            0: ("open", "not shown: the interval contains zero"),
            -sign: ("no", "the opposite is observed"),
        }[interval.sign]
        what = f"{metric}: {_difference(comparison)}"
        shown.append(
            {"claim": claim, "what": what, "verdict": verdict, "kind": kind, **(_cell(interval, metric) or {})}
        )
    return shown


def _difference(comparison: str) -> str:
    first, second = (TITLES[name] for name in comparison.split("_minus_"))
    return f"{first} − {second}"


def _forests(result: EvaluationResult) -> list[str]:
    uris = []
    for comparison, differences in result.comparisons.items():
        # Degrees are on another scale than shares and cosines.
        rows = [
            (metric, one) for metric, one in differences.items() if metric != "yaw_mae" and isinstance(one, Interval)
        ]
        if rows:
            uris.append(svg_uri(forest(rows, _difference(comparison))))
    return uris


def _drawn_tile(result: EvaluationResult, variant: str, cell_number: int, title: str) -> dict[str, Any]:
    picture = result.plan.cells[variant][cell_number]
    cell, readings = result.questions.cells[cell_number], result.readings
    found = bool(readings.found[picture])
    read_expression = EXPRESSIONS[readings.expression[picture]] if found else "no face"
    read_pose = POSES[readings.pose[picture]] if found else "no face"
    row = int(np.flatnonzero(result.scores[variant].cells == cell_number)[0])
    similarity = float(result.scores[variant].columns["id_similarity"][row])
    unknown = any(not_measurable(f"{kind}_accuracy", result.unfit) for kind in ("expression", "pose"))
    right = None if unknown else read_expression == cell.expression and read_pose == cell.pose
    likeness = _likeness(result, similarity)
    read = NOT_MEASURABLE if unknown else f"{read_expression}, {read_pose}"
    hint = f"asked: {cell.face_prompt}; read: {read}; similarity {likeness}"
    return _tile(result.drawn[picture].image, title, hint, likeness if found else "no face", right)


def _likeness(result: EvaluationResult, similarity: float) -> str:
    return number_text(similarity) if not_measurable("id_similarity", result.unfit) is None else NOT_MEASURABLE


def _photo_tile(result: EvaluationResult, image_id: str, title: str) -> dict[str, Any]:
    photo = result.photos[image_id]
    shows = ", ".join(
        word.replace("_", " ") if word else "open" for word in (photo.record.expression, photo.record.pose)
    )
    return _tile(photo.image, title, f"real photo: {shows}", shows)


def _tile(image: np.ndarray, title: str, hint: str, note: str, right: bool | None = None) -> dict[str, Any]:
    return {"image": data_uri(image), "title": title, "hint": hint, "note": note, "right": right}


def _person(result: EvaluationResult, index: int) -> dict[str, Any]:
    questions = result.questions
    person = questions.people[index]
    cells = {
        (cell.expression, cell.pose): number
        for number, cell in enumerate(questions.cells)
        if cell.person == index and cell.graded and cell.seed == 0
    }
    shared = _shared_cell(result, index)
    side_by_side = [
        _drawn_tile(result, variant, shared, TITLES[variant])
        for variant in (MODEL, SHIPPED, WITHOUT_GATE, WITHOUT_IMR, TRUE_TOKENS, TEXT_ONLY)
        if shared in result.plan.cells.get(variant, ())
    ]
    true_photo = questions.cells[shared].true_photo
    expressions = [_drawn_tile(result, MODEL, cells[name, "front"], name) for name in EXPRESSIONS]
    poses = [_drawn_tile(result, MODEL, cells["neutral", pose], pose.replace("_", " ")) for pose in POSES]
    return {
        "number": index + 1,
        "identity": person.identity,
        "reference": _photo_tile(result, person.reference, "reference"),
        "other": _photo_tile(result, person.others[0], "another real photo"),
        "asked": questions.cells[shared].face_prompt,
        "variants": side_by_side,
        "true_photo": _photo_tile(result, true_photo, "real, as asked") if true_photo else None,
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


def _shared_cell(result: EvaluationResult, index: int) -> int:
    """Return the person's cell that the most variants have drawn; of several, one that is not neutral."""

    def rank(number: int) -> tuple[int, bool, int]:
        variants = sum(number in cells for cells in result.plan.cells.values())
        return -variants, result.questions.cells[number].expression == "neutral", number

    mine = [number for number, cell in enumerate(result.questions.cells) if cell.person == index and cell.graded]
    return min(mine, key=rank)


def _several(result: EvaluationResult, number: int) -> dict[str, Any]:
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
                "note": f"{found} faces; own {_likeness(result, score.multi_id_similarity)}, "
                f"other {_likeness(result, score.leakage)}",
            }
        )
    return {
        "prompt": result.questions.multi_prompt_of(cell).text,
        "references": [
            {**_photo_tile(result, result.questions.people[person].reference, f"person {person + 1}"), "note": text}
            for person, text in zip(cell.people, cell.face_prompts, strict=True)
        ],
        "asked": [_percent(x0, y0, x1, y1) for y0, x0, y1, x1 in cell.boxes],
        "tiles": tiles,
    }


def _face(result: EvaluationResult, picture: ScoredPicture, place: int, person: int) -> dict[str, Any]:
    """Return the verdict on the face of one person: its box, likeness, and whether expression and pose are as asked."""
    face, faces = picture.score.assigned[place], picture.faces
    if face < 0:
        return {"person": person, "box": None, "own": "no face", "motion": []}
    motion = [
        {"read": names[read[face]].replace("_", " "), "right": bool(right)}
        for kind, names, read, right in (
            ("expression", EXPRESSIONS, faces.expression, picture.score.shows[place, 0]),
            ("pose", POSES, faces.pose, picture.score.shows[place, 1]),
        )
        if not_measurable(f"multi_{kind}_accuracy", result.unfit) is None
    ]
    own = _likeness(result, picture.score.own[place])
    return {"person": person, "box": _percent(*faces.boxes[face]), "own": own, "motion": motion}


def _percent(x0: float, y0: float, x1: float, y1: float) -> str:
    left, top, width, height = (f"{100 * value:.1f}%" for value in (x0, y0, x1 - x0, y1 - y0))
    return f"left:{left};top:{top};width:{width};height:{height}"


def _gates(result: EvaluationResult) -> list[dict[str, Any]]:
    shown = []
    for index in range(min(len(result.questions.people), _SHOWN_GATES)):
        picture = result.plan.cells[MODEL][_shared_cell(result, index)]
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


def _confusions(result: EvaluationResult) -> list[dict[str, Any]]:
    tables = []
    for kind, names in (("expression", EXPRESSIONS), ("pose", POSES)):
        for variant in CONFUSED if not_measurable(f"{kind}_accuracy", result.unfit) is None else ():
            counts = result.confusions[variant][kind]
            total = np.maximum(counts.sum(1, keepdims=True), 1)
            rows = [
                {
                    "name": name.replace("_", " "),
                    "cells": [
                        {"count": int(count), "share": round(float(share), 3)}
                        for count, share in zip(counts[row], (counts / total)[row], strict=True)
                    ],
                }
                for row, name in enumerate(names)
            ]
            read = [name.replace("_", " ") for name in names] + ["no face"]
            tables.append({"title": f"{kind}: {TITLES[variant]}", "read": read, "rows": rows})
    return tables


def _judges(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return what every judge reached on real photos, and the metrics that depend on it."""
    return [
        {
            "name": name,
            "figures": [
                f"{figure}: {value if isinstance(value, int) else number_text(value)}"
                for figure, value in quality.figures.items()
            ],
            "reason": quality.reason,
            "metrics": [metric for metric in METRICS if name in JUDGED_BY[metric]],
        }
        for name, quality in result.qualities.items()
    ]


def _sweeps(result: EvaluationResult) -> str | None:
    shown = {
        point: row
        for point, row in result.sweeps.items()
        if all(isinstance(row[metric], Interval) for metric in ("prompt_accuracy", "id_similarity"))
    }
    return svg_uri(sweep_plot(shown, _SWEPT)) if shown else None  # type: ignore[arg-type]


def _groups(result: EvaluationResult) -> dict[str, Any]:
    metrics = sorted({metric for row in result.group_metrics.values() for metric in row}, key=METRICS.index)
    rows = [
        {
            "name": name,
            "people": len(result.groups[name]),
            "cells": [_cell(row.get(metric), metric) for metric in metrics],
        }
        for name, row in result.group_metrics.items()
    ]
    return {"metrics": metrics, "rows": rows}
