"""What a stage's run in MLflow holds: few metrics with their meanings, tables of all others, and the datasets it read.

MLflow draws every metric as a chart and has no place for their meanings. So a run has those that people compare, its
description has their meanings, and all variants with intervals are a table that MLflow's page shows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.core.chain import FACES, METRICS, PROCESSED, VERDICT, VERDICT_PROCESSED, stages
from pipelines.core.documents import read_object
from pipelines.core.pages import markdown_table
from pipelines.evaluation.belonging import figure_text, read_document
from pipelines.evaluation.headline import HEADLINE, figures
from pipelines.evaluation.variants import MEANINGS, MULTI_MEANINGS, PAPER_MEANINGS, PAPER_VARIANTS, SINGLE_MEANINGS
from pipelines.registry.lineage import Lineage
from pipelines.registry.results import StageResult
from pipelines.versions.lock import hashes, read_lock

ALL_METRICS, PAPER = "all_metrics.json", "paper.json"
# Of several people only those of two; the others are in the table.
_PLAIN = (*SINGLE_MEANINGS, *MULTI_MEANINGS)
_TRAINING_MEANINGS = {
    "photos": "photos that were trained on",
    "people": "people in these photos",
    "photos_not_permitted": "photos that the rights policy refused",
    "people_held_out": "people of split val, on which the probe is measured",
    "imr": "mean squared error of the predicted identity tokens on held-out people; lower is better",
    "copy_source": "the same error if the reference's own tokens are taken; an upper bound for `imr`",
    "person_mean": "the same error if the mean of the person's tokens is taken",
    "probe_initial": "loss on fixed photos before the first step",
    "probe_final": "loss on the same photos after the last step; lower is better",
    "loss_initial": "loss of the first row of the curve",
    "loss_final": "smoothed loss of the last row; lower is better",
    "loss_slope": "slope of the loss per 1,000 steps",
    "probe_slope": "slope of the probe per 1,000 steps",
    "kept_step": "the step with the lowest probe, whose weights the adapter has",
}
_ARROW = {"int": "long", "float": "double", "double": "double", "bool": "boolean", "binary": "binary"}


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("a.b.c", leaf) of nested mappings; lists are leaves."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def stage_metrics(root: Path, name: str) -> dict[str, float]:
    """Return the metrics of a stage's run, at most 32, so that with those of the machine there are at most 40.

    For `evaluate` those of the model by their plain names, and the headline's of the shipped adapter as `shipped.…`. A
    metric that is not measurable has no value.
    """
    if name == "evaluate":
        return evaluation_metrics(read_document(root / METRICS))
    return _finite(dict(flatten(_measured(root, name))))


def determinism_tag(root: Path, name: str) -> dict[str, str]:
    """Return the tag that says how exactly a training repeats, from its metrics file; empty for other stages."""
    found = _measured(root, name).get("determinism")
    return {"dynamicid.determinism": found} if isinstance(found, str) else {}


def _measured(root: Path, name: str) -> dict[str, Any]:
    file = root / "reports" / name / "metrics.json"
    return read_object(file, f"`dynamicid repro --force {name}` writes it again") if file.is_file() else {}


def evaluation_metrics(document: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of an evaluation's run, as those of `stage_metrics`, from the contents of a metrics file."""
    return _finite({metric: figure["value"] for metric, figure in _shown(document).items()})


def _finite(values: dict[str, Any]) -> dict[str, float]:
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
    return {key: float(value) for key, value in numbers.items() if math.isfinite(value)}


def log_tables(client: Any, run_id: str, document: dict[str, Any]) -> None:
    """Log the tables of an evaluation to its run, and name them for MLflow's page."""
    for file, table in tables(document).items():
        client.log_dict(run_id, table, file)
    shown = [{"path": file, "type": "table"} for file in tables(document)]
    client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps(shown))


def tables(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tables of an evaluation by file, in the form that MLflow's page shows; none of another stage."""
    if not document:
        return {}
    columns = ["variant", "metric", "value", "low", "high", "reason", "meaning"]
    found = {ALL_METRICS: {"columns": columns, "data": [list(row) for row in _rows(document)]}}
    if paper := _paper(document):
        columns = ["variant", *next(iter(paper.values()))]
        data = [[variant, *(one["value"] for one in row.values())] for variant, row in paper.items()]
        found[PAPER] = {"columns": columns, "data": data}
    return found


def describe_run(name: str, document: dict[str, Any], values: dict[str, float], *, restored: bool) -> str:
    """Return the description of a stage's run (Markdown): what the stage does, its metrics and their meanings."""
    text = f"{next(stage.description for stage in stages() if stage.name == name)}\n"
    if restored:
        text += (
            "\nDVC had this result already, or it was made in another checkout: start and end are those of recording.\n"
        )
    if document:
        meanings = {**MEANINGS, **PAPER_MEANINGS, **{one.name: one.meaning for one in HEADLINE}}
        rows = []
        for metric, figure in _shown(document).items():
            between = "" if figure.get("low") is None else f"{figure['low']:.3f} … {figure['high']:.3f}"
            reason = "" if figure["value"] is not None else f" ({figure['reason']})"
            meaning = meanings.get(metric.removeprefix("paper.model."), "")
            rows.append((metric, f"{figure_text(figure)}{reason}", between, meaning))
        text += f"\n{markdown_table(('metric', 'value', '95 % interval', 'meaning'), rows)}"
        text += f"\nEvery variant and metric: the table `{ALL_METRICS}` among the artefacts.\n"
    elif values:
        lines = [(name, f"{value:.6g}", _TRAINING_MEANINGS.get(name, "")) for name, value in values.items()]
        text += f"\n{markdown_table(('metric', 'value', 'meaning'), lines)}"
    return text


def dataset_inputs(root: Path, result: StageResult, lineage: Lineage) -> list[Any]:
    """Return the datasets that a stage read as MLflow's inputs, each with version, digest, schema and counts.

    Their sources are paths in the checkout, so that they are valid wherever it is.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA

    version = lineage.dataset_version or "faces"
    read = {path for stage in stages() if stage.name == result.stage for path in stage.inputs}
    own = hashes(read_lock(root).get(result.stage, {}), "deps")
    verdicts = {path: _counts(root, path) for path in (VERDICT, VERDICT_PROCESSED)}
    found = []

    def add(name: str, digest: str, path: str, context: str, *, schema: Any, counts: dict[str, Any]) -> None:
        source = {"uri": path, "dataset_version": lineage.dataset_version, "digest": digest}
        columns = None if schema is None else json.dumps({"mlflow_colspec": _columns(schema)})
        dataset = Dataset(
            name, digest.removesuffix(".dir")[:36], "local", json.dumps(source), columns, json.dumps(counts)
        )
        found.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))

    if lineage.dataset_md5:
        counts = {"photos": verdicts[VERDICT].get("rows")}
        add(version, lineage.dataset_md5, FACES, "source", schema=DATASET_SCHEMA, counts=counts)
    if PROCESSED in read and PROCESSED in own:
        context = {"evaluate": "evaluation", "validate_processed": "validation"}.get(result.stage, "training")
        counts = {**verdicts[VERDICT_PROCESSED], **(_trained_on(root, result.stage) if context == "training" else {})}
        add(f"{version} processed", own[PROCESSED], PROCESSED, context, schema=PROCESSED_SCHEMA, counts=counts)
    if lineage.evaluation_set:
        document = read_document(root / METRICS)
        people = {len(values) for values in document.get("by_unit", {}).values() if values}
        counts = {"people": max(people, default=None), "pictures": document.get("settings", {}).get("pictures")}
        add(f"{version} evaluation set", lineage.evaluation_set, PROCESSED, "evaluation", schema=None, counts=counts)
    return found


def _shown(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the figures that a run has as metrics, the headline first: MLflow's page keeps their order."""
    return {**figures(document), **_of_model(document)}


def _of_model(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the model's own figures by plain names, and the paper's as `paper.model.…`."""
    own = {name: figure for name, figure in document.get("model", {}).items() if name in _PLAIN}
    return {**own, **{f"paper.model.{name}": figure for name, figure in _paper(document).get("model", {}).items()}}


def _paper(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the variants of the paper's questions in a metrics file, each with its metrics; empty without them."""
    return {variant: document["paper"][variant] for variant in PAPER_VARIANTS if "paper" in document}


def _rows(document: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield every figure of a metrics file: variant, metric, value, low, high, reason, meaning."""
    for path, figure in _figures(document, ()):
        *variant, metric = path
        values = (figure.get(name) for name in ("value", "low", "high", "reason"))
        yield ".".join(variant), metric, *values, MEANINGS.get(metric) or PAPER_MEANINGS.get(metric)
    for judge, reached in document.get("judges", {}).items():
        for metric, value in reached.items():
            if isinstance(value, int | float):
                yield f"judges.{judge}", metric, value, None, None, reached.get("reason"), None


def _figures(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if not isinstance(tree, dict) or path[:1] in (("settings",), ("made_by",), ("judges",)):
        return
    if path and "value" in tree:
        yield path, tree
        return
    for name, inner in tree.items():
        yield from _figures(inner, (*path, str(name)))


def _counts(root: Path, verdict: str) -> dict[str, Any]:
    """Return rows, people and accepted share of a dataset that the verdict of Great Expectations has."""
    if not (root / verdict).is_file():
        return {}
    document = read_object(root / verdict, "`dynamicid repro` writes it again")
    names = {"identities": "people", "test_identities": "people_of_split_test", "accepted_share": "accepted_share"}
    seen = {one["name"]: one.get("observed") for one in document.get("expectations", ()) if one["name"] in names}
    return {"rows": document.get("rows"), **{names[name]: value for name, value in seen.items()}}


def _trained_on(root: Path, stage: str) -> dict[str, Any]:
    values = stage_metrics(root, stage)
    return {f"{name}_trained_on": int(values[name]) for name in ("photos", "people") if name in values}


def _columns(schema: Any) -> list[dict[str, Any]]:
    """Return the columns of an Arrow schema as MLflow describes columns."""

    def kind(column: Any) -> dict[str, Any]:
        import pyarrow as pa

        if pa.types.is_list(column):
            return {"type": "array", "items": kind(column.value_type)}
        name = str(column).rstrip("0123456789")
        return {"type": _ARROW.get(name, "string")}

    return [{"name": field.name, "required": False, **kind(field.type)} for field in schema]
