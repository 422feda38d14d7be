"""The report: one HTML page of metrics with intervals, and of pictures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.files import atomic_folder
from pipelines.core.pages import render_page
from pipelines.evaluation.belonging import NOT_MEASURABLE
from pipelines.evaluation.contact_sheet import contact_sheet
from pipelines.evaluation.headline import S_MEANING
from pipelines.evaluation.intervals import Interval, NotMeasurable
from pipelines.evaluation.paper import PUBLISHED, PaperResult
from pipelines.evaluation.pictures import svg_uri
from pipelines.evaluation.plots import forest, loss_curves, read_losses, sweep_plot
from pipelines.evaluation.protocol import EvaluationResult
from pipelines.evaluation.report_pictures import (
    drawn_tile,
    gate_maps,
    number_text,
    person_pictures,
    photo_tile,
    several_pictures,
    shared_cell,
)
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
    VARIANT_MEANINGS,
)

# The method's claims, each with the comparison and metric that test it, and the difference's sign if it holds.
EFFECTS: tuple[tuple[str, str, str, int], ...] = (
    ("The adapter draws the person", "model_minus_text_only", "id_similarity", 1),
    ("The attention gate keeps the picture closer to its text", "model_minus_without_gate", "prompt_accuracy", 1),
    ("The IMR improves expression", "model_minus_without_imr", "expression_accuracy", 1),
    ("The IMR improves pose", "model_minus_without_imr", "pose_accuracy", 1),
    ("The attention gate costs identity similarity", "model_minus_without_gate", "id_similarity", -1),
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
_SWEPT = {"scale": "identity scale λ", "threshold": "attention gate's threshold τ", "guidance": "guidance"}
# A page with everybody would not open: of many, the first are shown.
_SHOWN_PEOPLE = _SHOWN_SEVERAL = 16
_PEOPLE_TEMPLATE = Path(__file__).with_name("people.html.j2")
_AT_A_GLANCE: dict[str, str] = {TEXT_ONLY: "base model", MODEL: "just trained", SHIPPED: "shipped"}


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
    table = _table(result)
    curves = {name: read_losses(file) for name, file in losses.items()}
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        mark=mark,
        settings=document["settings"],
        evaluation_set=document["evaluation_set"],
        people_count=len(result.questions.people),
        summary=_summary(result),
        glance=_glance(result),
        sheet=contact_sheet(result),
        table=table,
        meanings={row["metric"]: row["meaning"] for row in table["rows"]},
        effects=_effects(result),
        forests=_forests(result),
        people=[person_pictures(result, index) for index in range(min(len(result.questions.people), _SHOWN_PEOPLE))],
        several=[several_pictures(result, number) for number in _shown_several(result)],
        several_count=len(result.questions.multi_cells),
        gates=gate_maps(result),
        losses=svg_uri(loss_curves(curves)) if curves else None,
        confusions=_confusions(result),
        groups=_groups(result),
        sweeps=_sweeps(result),
        judges=_judges(result),
        paper=None if paper is None else _paper(paper),
    )


def write_people(result: EvaluationResult, folder: Path, mark: str) -> bool:
    """Write pages of the people whom the report does not show into `folder`, which is replaced; False where it has all.

    A page is written before the next one is made, so that memory does not grow with the people. Evaluations that end at
    once wait for each other: those of the last one stay.
    """
    from filelock import FileLock

    with FileLock(folder.with_suffix(".lock")):
        return _write_people(result, folder, mark)


def _write_people(result: EvaluationResult, folder: Path, mark: str) -> bool:
    count = len(result.questions.people)
    if count <= _SHOWN_PEOPLE:
        shutil.rmtree(folder, ignore_errors=True)  # those of another evaluation
        return False
    spans = [(start, min(start + _SHOWN_PEOPLE, count)) for start in range(_SHOWN_PEOPLE, count, _SHOWN_PEOPLE)]
    pages = [(f"{start + 1:04d}-{end:04d}.html", f"{start + 1} to {end}") for start, end in spans]
    with atomic_folder(folder) as part:
        for (start, end), (name, _) in zip(spans, pages, strict=True):
            people = [person_pictures(result, index) for index in range(start, end)]
            where = {"first": start + 1, "last": end, "people_count": count, "page": name, "pages": pages}
            page = render_page(_PEOPLE_TEMPLATE, mark=mark, people=people, **where)
            (part / name).write_text(page, encoding="utf-8")
    return True


def _shown_several(result: EvaluationResult) -> list[int]:
    """Return the numbers of the first pictures of two, of three and of four people."""
    return sorted(number for people in (2, 3, 4) for number in result.questions.multi_of(people)[:_SHOWN_SEVERAL])


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
        "s_text": s.get(TEXT_ONLY, {}).get("id_similarity"),
        "own": model["own_over_other"],
        # Plain prompts ask for no colours.
        **{name: model.get(f"{name}_accuracy") for name in ("expression", "pose", "prompt")},
    }
    return {name: cell["value"] if (cell := _cell(one, "")) else "" for name, one in shown.items()}


def _glance(result: EvaluationResult) -> dict[str, Any]:
    """Return for every person the reference, and one cell drawn by base model, adapter and shipped adapter."""
    variants = [variant for variant in _AT_A_GLANCE if variant in result.plan.cells]
    people = []
    for index, person in enumerate(result.questions.people[:_SHOWN_PEOPLE]):
        cell = shared_cell(result, index)
        tiles = [photo_tile(result, person.reference, "reference")]
        tiles += [drawn_tile(result, variant, cell, _AT_A_GLANCE[variant]) for variant in variants]
        people.append({"number": index + 1, "asked": result.questions.cells[cell].face_prompt, "tiles": tiles})
    return {"people": people, "names": [_AT_A_GLANCE[variant] for variant in variants]}


def _table(result: EvaluationResult) -> dict[str, Any]:
    shown = [variant for variant in TITLES if variant in result.metrics]
    rows = [
        {
            "metric": "s",
            "meaning": S_MEANING,
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
    return {"titles": [(TITLES[variant], VARIANT_MEANINGS[variant]) for variant in shown], "rows": rows}


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
        interval = result.comparisons.get(comparison, {}).get(metric)
        if interval is None:
            continue
        what = {"claim": claim, "metric": metric, "difference": _difference(comparison)}
        if isinstance(interval, NotMeasurable):
            cell = _cell(interval, metric) or {}
            shown.append({**what, "verdict": NOT_MEASURABLE, "kind": "open", **cell})
            continue
        kind, verdict = {
            sign: ("yes", "shown"),
            0: ("open", "not shown: the interval contains zero"),
            -sign: ("no", "the opposite is observed"),
        }[interval.sign]
        shown.append({**what, "verdict": verdict, "kind": kind, **(_cell(interval, metric) or {})})
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


def _confusions(result: EvaluationResult) -> list[dict[str, Any]]:
    tables = []
    for kind, names in (("expression", EXPRESSIONS), ("pose", POSES)):
        for variant in result.confusions if not_measurable(f"{kind}_accuracy", result.unfit) is None else ():
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
        if all(isinstance(row.get(metric), Interval) for metric in ("prompt_accuracy", "id_similarity"))
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
