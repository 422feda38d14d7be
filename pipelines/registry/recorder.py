"""Record a finished stage in MLflow: parameters, lineage, metrics, loss curves and reports.

Stages write plain files and do not depend on MLflow, so no result is lost when a server is down or slow. A result that
DVC restored from its cache is recorded like a new one: both have the same `dvc.lock` entry.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.core.chain import LOSSES_ANCHORING, LOSSES_IMR, METRICS, REPORT, VERDICT, VERDICT_PROCESSED, stages
from pipelines.core.documents import read_object
from pipelines.core.errors import StageFailed
from pipelines.core.params import Params
from pipelines.evaluation.belonging import read_document, withheld_tags
from pipelines.evaluation.variants import PAPER_VARIANTS, SUMMARISED
from pipelines.registry.lineage import Lineage, lineage_of
from pipelines.registry.registry import open_registry, registry_lock
from pipelines.registry.results import StageResult, result_of
from pipelines.registry.runs import finished_run, log_values, open_run, search_runs
from pipelines.versions.workspace import run_name

_ARTEFACTS: dict[str, tuple[str, ...]] = {
    "validate": (VERDICT,),
    "validate_processed": (VERDICT_PROCESSED,),
    "train_anchoring": (LOSSES_ANCHORING, "reports/train_anchoring/metrics.json", "models/anchoring/config.json"),
    "train_imr": (LOSSES_IMR, "reports/train_imr/metrics.json", "models/adapter/config.json"),
    "evaluate": (METRICS, REPORT),
}


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("a.b.c", leaf) of nested mappings; lists are leaves."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def stage_metrics(root: Path, name: str) -> dict[str, float]:
    """Return the scalar metrics of a stage; for `evaluate`, `<variant>.<metric>` with `.low` and `.high`.

    The model's metrics are also given without the prefix: `id_similarity`, `expression_accuracy` … A metric that is not
    measurable has no value.
    """
    if name == "evaluate":
        tree = read_document(root / METRICS)
        found: dict[str, float | None] = {}
        for variant in SUMMARISED:
            for metric, interval in tree.get(variant, {}).items():
                for end, suffix in (("value", ""), ("low", ".low"), ("high", ".high")):
                    found[f"{variant}.{metric}{suffix}"] = interval.get(end)
                if variant == "model":
                    found[metric] = interval["value"]
        for variant, metrics in tree.get("normalised", {}).items():
            for metric, interval in metrics.items():
                found[f"normalised.{variant}.{metric}"] = interval["value"]
        for variant, row in paper_rows(tree):
            for metric, interval in row.items():
                for end, suffix in (("value", ""), ("low", ".low"), ("high", ".high")):
                    found[f"paper.{variant}.{metric}{suffix}"] = interval.get(end)
        reached = flatten(tree.get("judges", {}), "judges")
        found |= {name: value for name, value in reached if not isinstance(value, str)}
    else:
        file = root / "reports" / name / "metrics.json"
        tree = read_object(file, f"`dynamicid repro --force {name}` writes it again") if file.is_file() else {}
        found = {key: value for key, value in flatten(tree) if isinstance(value, int | float)}
    return {key: float(value) for key, value in found.items() if value is not None and math.isfinite(value)}


def paper_rows(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the variants of the paper's questions in a metrics file, each with its metrics; empty without them."""
    return [(variant, document["paper"][variant]) for variant in PAPER_VARIANTS if "paper" in document]


def _curves(file: Path) -> list[Any]:
    """Return the points of a loss curve (CSV with a column `step`) as MLflow metrics."""
    from mlflow.entities import Metric

    points = []
    with file.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            step = int(row.pop("step"))
            points += [Metric(key, float(text), 0, step) for key, text in row.items() if text not in ("", "nan")]
    return points


def _fail_unfinished(client: Any, lineage: Lineage) -> None:
    """Mark as failed the runs that an interrupted attempt of the same Airflow run left unfinished."""
    if not lineage.airflow_run_id:
        return
    for run in search_runs(client, "RUNNING", {"stage": lineage.stage}):
        if run.data.tags.get("dynamicid.airflow_run_id") == lineage.airflow_run_id:
            client.set_terminated(run.info.run_id, "FAILED")


def _parameters(result: StageResult, params: Params) -> dict[str, str]:
    """Return the parameters that made a result by their names; the profile only where it is theirs."""
    present = params.model_dump(mode="json", by_alias=True)
    names = next(stage for stage in stages() if stage.name == result.stage).sections
    sections = {name: {**present[name], **result.params.get(name, {})} for name in names}
    unchanged = all(sections[name] == present[name] for name in names)
    profile = result.profile or (params.profile if unchanged else None)
    leaves = {} if profile is None else {"profile": profile}
    for name, section in sections.items():
        # A lock file may have sections of an earlier version with keys that are gone.
        leaves |= {key: str(value)[:6000] for key, value in flatten(section, name)}
    return leaves


class Discarded(StageFailed):
    """Somebody deleted the MLflow run of a result, which is therefore not recorded again."""


def record_stage(root: Path, name: str, params: Params, *, anew: bool = False) -> str:
    """Record the present result of stage `name` and return the MLflow run's id.

    The parameters are those that made the result; `params` only adds sections of which nothing is recorded. An already
    recorded result gets only a tag for the Airflow run that used it. Raises UserError where the stage has not been run,
    StageFailed where its files do not belong together, and Discarded, unless `anew`, where somebody deleted the run of
    this result.
    """
    from mlflow.entities import Metric

    result = result_of(root, name)
    lineage = lineage_of(root, name, result)
    client = open_registry(root)
    # Two processes that record the same result at once give one run.
    with registry_lock(root, name=f"record-{name}"):
        existing = finished_run(client, stage=name, lock_hash=lineage.lock_hash)
        if existing is not None:
            if lineage.airflow_run_id:
                # A run id may have characters that are allowed in a tag's value but not in its name.
                used_by = f"dynamicid.used_by.{run_name(lineage.airflow_run_id)}"
                client.set_tag(existing, used_by, lineage.airflow_run_id)
            return existing
        deleted = None if anew else finished_run(client, deleted=True, stage=name, lock_hash=lineage.lock_hash)
        if deleted is not None:
            raise Discarded(
                f"{name}: somebody deleted its MLflow run {deleted}, so it is not recorded again; `mlflow runs restore "
                f"--run-id {deleted}` brings it back, `dynamicid record {name}` makes a new one"
            )
        _fail_unfinished(client, lineage)
        withheld = withheld_tags(read_document(root / METRICS)) if name == "evaluate" else {}
        with open_run(client, name, {**lineage.tags(), **withheld}) as run_id:
            losses = root / "reports" / name / "losses.csv"
            curves = _curves(losses) if losses.is_file() else []
            now = time.time_ns() // 1_000_000
            values = [Metric(key, number, now, 0) for key, number in stage_metrics(root, name).items()]
            log_values(client, run_id, _parameters(result, params), [*curves, *values])
            if name == "evaluate" and (rows := paper_rows(read_document(root / METRICS))):
                table = [{"variant": variant, **{m: one["value"] for m, one in row.items()}} for variant, row in rows]
                columns = {key: [row[key] for row in table] for key in table[0]}
                client.log_table(run_id, columns, "paper.json")
            for path in _ARTEFACTS.get(name, ()):
                if (root / path).is_file():
                    client.log_artifact(run_id, str(root / path))
            return run_id
