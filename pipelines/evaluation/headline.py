"""The headline of an evaluation: a few of its metrics by plain names, for tools that list every metric they get."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.evaluation.belonging import NOT_MEASURABLE
from pipelines.evaluation.variants import HEADINGS, MEANINGS, MODEL, SHIPPED

# The settings in metrics.json on which the metrics depend; the others describe the adapter or the report.
_CONDITIONS = (
    "resolution",
    "sampler",
    "steps",
    "guidance",
    "guidance_rescale",
    "boost",
    "boost_steps",
    "layout_steps",
    "layout",
    "weights",
    "faces",
    "judges",
)
# Settings that older documents lack, with the value that applied then: at this value they are left out.
_BEFORE = {"guidance_rescale": 0.0, "layout_steps": 0, "layout": "regions"}
# Of a hash; enough to tell two apart, and to find one in metrics.json.
_DIGITS = 12
# `s` is `id_similarity` in the section `normalised` of metrics.json.
S = "s"
S_MEANING = (
    "identity similarity on a scale of the judge: 0 is a stranger, 1 another photo of the person; higher is better"
)


@dataclass(frozen=True)
class HeadlineMetric:
    """A metric of the headline: its name there, the variant and the name that it has in `metrics.json`, its meaning."""

    name: str
    variant: str
    metric: str
    meaning: str


def _metrics() -> tuple[HeadlineMetric, ...]:
    shared = (S, "own_over_other", "expression_accuracy", "pose_accuracy", "binding")
    of_model = (*shared, "prompt_accuracy", "clip_t", "face_rate", "kid", "multi_id_min")
    meanings = {**MEANINGS, S: S_MEANING}
    return (
        *(HeadlineMetric(name, MODEL, name, meanings[name]) for name in of_model),
        *(
            HeadlineMetric(f"{SHIPPED}.{name}", SHIPPED, name, f"{HEADINGS[SHIPPED]}: {meanings[name]}")
            for name in shared
        ),
    )


# At most 15. Those of the model have no prefix.
HEADLINE: tuple[HeadlineMetric, ...] = _metrics()


def figures(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics of HEADLINE that `document`, the contents of `metrics.json`, has: by name, with intervals.

    A metric that is not measurable has the value None and a `reason`.
    """
    found = {}
    for one in HEADLINE:
        rows, metric = (document.get("normalised", {}), "id_similarity") if one.metric == S else (document, one.metric)
        if (figure := rows.get(one.variant, {}).get(metric)) is not None:
            found[one.name] = dict(figure)
    return found


def headline(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of `headline.json`: hashes of evaluation set and settings, then the metrics as nested keys.

    Two headlines with different hashes do not compare. A metric that is not measurable has these words as its value.
    """
    settings = json.dumps(comparable_settings(document), sort_keys=True)
    tree: dict[str, Any] = {
        "evaluation_set": document["evaluation_set"][:_DIGITS],
        "evaluation_settings": hashlib.sha256(settings.encode()).hexdigest()[:_DIGITS],
    }
    for name, figure in figures(document).items():
        *variant, metric = name.split(".")
        row = tree.setdefault(variant[0], {}) if variant else tree
        row[metric] = NOT_MEASURABLE if figure["value"] is None else figure["value"]
    return tree


def comparable_settings(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an evaluation that must be those of another one for their metrics to compare."""
    known = document.get("settings", {})
    return {
        key: known[key] for key in _CONDITIONS if key in known and not (key in _BEFORE and known[key] == _BEFORE[key])
    }
