"""Evaluate the adapter of one cell, and keep what the comparison needs: values of every person, and some pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.files import atomic_folder, mark_used
from pipelines.core.locks import hold_with_children
from pipelines.core.params import Params
from pipelines.core.screen import say
from pipelines.evaluation.variants import CEILING, FLOOR, MODEL, TEXT_ONLY

if TYPE_CHECKING:
    from pipelines.evaluation.evaluation_set import EvaluationSet
    from pipelines.evaluation.protocol import EvaluationResult

METRICS, REPORT, _KEPT = "metrics.json", "index.html", "kept.json"
# The first people and pictures of two are shown, not the best ones.
_PEOPLE, _SEVERAL = 8, 6
_TURNED = tuple(pose for pose in POSES if pose != "front")


@dataclass(frozen=True)
class Evaluated:
    """The evaluation of one adapter.

    `document`: the contents of `metrics.json`; `units`: by variant the values of every metric for each person, or
    picture of several, None where there is none, and under `floor` and `ceiling` the similarities at both ends of the
    scale; `pictures`: rows, each with `asked`, `references` (tiles) and `drawn` (a tile by variant).
    """

    folder: Path
    document: dict[str, Any]
    units: Mapping[str, Mapping[str, list[float | None]]]
    pictures: list[dict[str, Any]]


def evaluated(
    params: Params,
    processed: Path,
    adapter: Path,
    folder: Path,
    *,
    variants: tuple[str, ...],
    losses: Mapping[str, Path],
    work: Path,
) -> Evaluated:
    """Evaluate `adapter` into `folder`, unless that is done, and return the result; raises as `evaluate`.

    `variants`: TEXT_ONLY, or nothing, beside the model; `losses`: as in `evaluate`; `work`: the folder of drawn
    pictures.
    """
    from pipelines.evaluation.evaluate import evaluate

    busy = f"{folder.name[:12]}: another comparison is evaluating it; waiting for it"
    with hold_with_children(folder.with_suffix(".lock"), lambda: say(busy)):
        if not folder.is_dir():
            with atomic_folder(folder) as part:

                def keep(result: EvaluationResult) -> None:
                    kept = {"units": _units(result), "pictures": _pictures(result)}
                    (part / _KEPT).write_text(json.dumps(kept), encoding="utf-8")

                files: dict[str, Any] = {"metrics": part / METRICS, "report": part / REPORT, "work": work}
                evaluate(params, processed, adapter, losses=losses, variants=variants, keep=keep, **files)
    for file in folder.iterdir():
        mark_used(file)
    kept = json.loads((folder / _KEPT).read_bytes())
    document = json.loads((folder / METRICS).read_bytes())
    return Evaluated(folder, document, kept["units"], kept["pictures"])


def seen_as(document: Mapping[str, Any], variant: str) -> dict[str, Any]:
    """Return the contents of a metrics file as if `variant` were its model."""
    return {**document, MODEL: document[variant], "normalised": {MODEL: document["normalised"][variant]}}


def _units(result: EvaluationResult) -> dict[str, dict[str, list[float | None]]]:
    from pipelines.evaluation.results import person_means

    people = len(result.questions.people)
    units = {variant: result.by_unit(variant) for variant in (MODEL, TEXT_ONLY) if variant in result.plan.cells}
    for end in (FLOOR, CEILING):
        values = person_means(result.scores[end], "id_similarity", people)
        units[end] = {"id_similarity": [None if np.isnan(one) else float(one) for one in values]}
    return units


def _pictures(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return a row for an expression and a pose of each of the first people, and for the first pictures of two."""
    from pipelines.evaluation.report_pictures import drawn_tile, photo_tile, several_pictures

    questions, drawn = result.questions, [one for one in (MODEL, TEXT_ONLY) if one in result.plan.cells]
    rows: list[dict[str, Any]] = []
    for number in shown_cells(questions):
        cell = questions.cells[number]
        rows.append(
            {
                "asked": f"{questions.prompt_of(cell).text}; {cell.face_prompt}",
                "references": [photo_tile(result, questions.people[cell.person].reference, "")],
                "drawn": {one: drawn_tile(result, one, number, "") for one in drawn},
            }
        )
    for number in questions.multi_of(2)[:_SEVERAL]:
        row = several_pictures(result, number)
        tiles = dict(zip(result.multi, row["tiles"], strict=True))
        references = [{**tile, "verdicts": ()} for tile in row["references"]]
        shown = {one: {**tiles[one], "title": "", "hint": tiles[one]["note"], "verdicts": []} for one in drawn}
        asked = "; ".join(questions.multi_cells[number].face_prompts)
        rows.append({"asked": f"{row['prompt']}; from the left: {asked}", "references": references, "drawn": shown})
    return rows


def shown_cells(questions: EvaluationSet) -> list[int]:
    """Return the numbers of the cells that the page shows: of each person one expression and one pose, in turn."""
    numbers = {
        (cell.person, cell.expression, cell.pose): number
        for number, cell in enumerate(questions.cells)
        if cell.graded and cell.seed == 0
    }
    shown = []
    for person in range(min(len(questions.people), _PEOPLE)):
        shown.append(numbers[person, EXPRESSIONS[1 + person % (len(EXPRESSIONS) - 1)], "front"])
        shown.append(numbers[person, EXPRESSIONS[0], _TURNED[person % len(_TURNED)]])
    return shown
