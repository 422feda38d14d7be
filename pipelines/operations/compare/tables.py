"""The table of a comparison as text: for the page, the terminal and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.evaluation.belonging import NOT_MEASURABLE
from pipelines.evaluation.headline import S_MEANING, S
from pipelines.evaluation.report_pictures import number_text
from pipelines.evaluation.variants import MEANINGS, METRICS
from pipelines.operations.compare.figures import Figure, Figures

# Of the table for a paper; the page has all.
HEADLINE = (
    *(S, "own_over_other", "expression_accuracy", "pose_accuracy", "prompt_accuracy", "clip_t", "face_rate", "kid"),
    *("multi_id_min", "binding"),
)
_MEANINGS = {S: S_MEANING, **MEANINGS}
# Later trainings find what the first one has encoded.
_FIRST = "the first one also encodes the photos that no cache has"
_VERDICTS = {1: "higher", -1: "lower", 0: "open"}
Costs = Mapping[str, Sequence[Mapping[str, Any]]]
"""Row → the cost of every seed; none of a row that was not trained here."""


def metric_rows(figures: Figures, trained: Mapping[str, bool]) -> list[dict[str, Any]]:
    """Return a row for every metric that a row of the comparison has: its name, meaning and cells."""
    known = [metric for metric in (S, *METRICS) if any(metric in row for row in figures.values.values())]
    return [
        {
            "metric": metric,
            "meaning": _MEANINGS[metric],
            "cells": [
                _cell(metric, row.get(metric), figures.differences.get(name, {}).get(metric), trained=trained[name])
                for name, row in figures.values.items()
            ],
        }
        for metric in known
    ]


def _cell(metric: str, figure: Figure | None, difference: Figure | None, *, trained: bool) -> dict[str, str] | None:
    """Return the texts of a cell, None where the row does not have the metric."""
    if figure is None:
        return None
    if figure.value is None:
        return {**_plain(NOT_MEASURABLE), "reason": figure.reason}
    shown = {**_plain(number_text(figure.value, metric)), "range": _range(figure, metric), "reason": figure.reason}
    shown["seeds"] = seeds_text(figure, metric) if trained else ""
    if difference is not None and difference.value is not None:
        text = number_text(difference.value, metric)
        shown["difference"] = f"{'' if difference.value < 0 else '+'}{text}; {_range(difference, metric)}"
        shown["verdict"] = _VERDICTS[difference.sign]
        better = difference.sign * _direction(metric)
        shown["kind"] = {1: "yes", -1: "no"}.get(better, "open" if difference.sign == 0 else "")
    return shown


def seeds_text(figure: Figure, metric: str = "") -> str:
    """Return the spread over seeds in words: lowest and highest, or that there is one seed."""
    if len(figure.seeds) < 2:
        return "one seed"
    low, high = (number_text(end(figure.seeds), metric) for end in (min, max))
    return f"{len(figure.seeds)} seeds: {low} … {high}"


def cost_rows(costs: Costs, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each kind of cost: its name, its meaning, and a cell for every row of the comparison."""
    kinds = (
        ("seconds", f"of the training by the clock; {_FIRST}", lambda cost: _total(cost, "seconds")),
        ("processor seconds", f"of all cores; {_FIRST}", lambda cost: _total(cost, "processor_seconds")),
        ("seconds a step", "median of the later steps of the fastest seed; of train_imr after the plus", _step),
        ("peak memory", "of the training's process, in GB; on a GPU that of the GPU after it", _memory),
        ("trained parameters", "in millions", lambda cost: f"{cost['parameters'] / 1e6:.2f}"),
    )
    rows: list[dict[str, Any]] = []
    for title, meaning, text in kinds:
        cells: list[dict[str, str] | None] = []
        for name in names:
            found = [text(cost) for cost in costs.get(name, ())]
            if title == "seconds a step" and found:
                found = [min(found)]
            parts = list(dict.fromkeys(found))
            cells.append(_plain(parts[0] if len(parts) == 1 else "; ".join(found)) if parts else None)
        if any(cells):
            rows.append({"metric": title, "meaning": meaning, "cells": cells})
    return rows


def _plain(text: str) -> dict[str, str]:
    return {"value": text, "range": "", "seeds": "", "reason": "", "difference": "", "verdict": "", "kind": ""}


def _stages(cost: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [cost[stage] for stage in ("train_anchoring", "train_imr") if stage in cost]


def _total(cost: Mapping[str, Any], name: str) -> str:
    found = [stage[name] for stage in _stages(cost)]
    return "interrupted" if None in found else f"{sum(found):.0f}"


def _step(cost: Mapping[str, Any]) -> str:
    found = [stage["seconds_per_step"] for stage in _stages(cost)]
    return " + ".join("not measured" if one is None else f"{one:.3f}" for one in found)


def _memory(cost: Mapping[str, Any]) -> str:
    peak = max((stage["peak_bytes"] or 0 for stage in _stages(cost)), default=0)
    cuda = max((stage["peak_cuda_bytes"] or 0 for stage in _stages(cost)), default=0)
    text = f"{peak / 1e9:.2f}" if peak else "not measured"
    return f"{text}, {cuda / 1e9:.2f}" if cuda else text


def latex(figures: Figures, rows: Sequence[Mapping[str, Any]], note: str) -> str:
    """Return the headline, and `rows` of costs, as a table of LaTeX (package booktabs), with `note` below its title."""
    import pandas

    names = list(figures.values)
    lines: dict[str, list[str]] = {}
    for metric in HEADLINE:
        found = [figures.values[name].get(metric) for name in names]
        if any(found):
            lines[metric] = [
                _latex_cell(metric, figure, figures.differences.get(name, {}).get(metric))
                for name, figure in zip(names, found, strict=True)
            ]
    for row in rows:
        lines[row["metric"]] = [cell["value"] if cell else "" for cell in row["cells"]]
    frame = pandas.DataFrame.from_dict(lines, orient="index", columns=names)
    caption = f"{note} In brackets: 95\\% intervals over people. An asterisk: differs from {_escaped(names[0])}."
    return str(frame.to_latex(escape=True, caption=caption, label="tab:comparison", position="ht"))


def _latex_cell(metric: str, figure: Figure | None, difference: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.value is None:
        return NOT_MEASURABLE
    text = number_text(figure.value, metric) + ("*" if difference is not None and difference.sign else "")
    if figure.interval is not None:
        low, high = (number_text(end, metric) for end in (figure.interval.low, figure.interval.high))
        text = f"{text} [{low}, {high}]"
    return text.replace("−", "-")


def _escaped(text: str) -> str:
    return text.replace("_", "\\_")


def _range(figure: Figure, metric: str) -> str:
    if figure.interval is None:
        return ""
    return f"{number_text(figure.interval.low, metric)} … {number_text(figure.interval.high, metric)}"


def _direction(metric: str) -> int:
    """Return 1 where more is better, −1 where less is, 0 where its meaning does not say."""
    meaning = _MEANINGS[metric]
    if "lower is better" in meaning:
        return -1
    return int("higher is better" in meaning or metric.endswith("accuracy") or metric.startswith("binding"))
