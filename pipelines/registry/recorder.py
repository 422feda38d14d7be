"""Record a finished stage in MLflow: parameters, lineage, metrics, datasets, loss curves and reports.

Stages write plain files and do not depend on MLflow, so no result is lost when a server is down or slow. A result that
DVC restored from its cache is recorded like a new one, without the times of its execution: both have the same
`dvc.lock` entry.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.core.chain import (
    ADAPTER,
    LOSSES_ANCHORING,
    LOSSES_IMR,
    METRICS,
    REPORT,
    VERDICT,
    VERDICT_PROCESSED,
    stages,
)
from pipelines.core.errors import StageFailed
from pipelines.core.execution import Execution, read_execution
from pipelines.core.params import Params
from pipelines.core.screen import say
from pipelines.evaluation.belonging import read_document, record_of, withheld_tags
from pipelines.registry.contents import (
    dataset_inputs,
    describe_run,
    determinism_tag,
    flatten,
    log_tables,
    stage_metrics,
)
from pipelines.registry.lineage import Lineage, lineage_of, source_tags
from pipelines.registry.live import log_samples, milliseconds, run_of
from pipelines.registry.model_extras import write_sheet
from pipelines.registry.parents import add_to_parent, end_parent, name_experiment, parent_of
from pipelines.registry.registry import open_registry, registry_lock
from pipelines.registry.results import StageResult, result_of
from pipelines.registry.runs import PARENT, finished_run, leave_address, log_values, open_run, search_runs, writing
from pipelines.registry.tracking import Tracking
from pipelines.versions.lock import parameters, read_lock
from pipelines.versions.workspace import run_name

_ARTEFACTS: dict[str, tuple[str, ...]] = {
    "validate": (VERDICT,),
    "validate_processed": (VERDICT_PROCESSED,),
    "train_anchoring": (LOSSES_ANCHORING, "reports/train_anchoring/metrics.json", "models/anchoring/config.json"),
    "train_imr": (LOSSES_IMR, "reports/train_imr/metrics.json", "models/adapter/config.json"),
    "evaluate": (METRICS, REPORT),
}


def _fail_unfinished(client: Any, lineage: Lineage) -> None:
    """Mark as failed the runs that an interrupted attempt of the same Airflow run left unfinished."""
    if not lineage.airflow_run_id:
        return
    for run in search_runs(client, "RUNNING", {"stage": lineage.stage}):
        if run.data.tags.get("dynamicid.airflow_run_id") == lineage.airflow_run_id:
            client.set_terminated(run.info.run_id, "FAILED")


def _parameters(root: Path, result: StageResult, params: Params) -> dict[str, str]:
    """Return the parameters of all stages that shaped a result by their names; the profile only where it is theirs."""
    present = params.model_dump(mode="json", by_alias=True)
    own = next(stage for stage in stages() if stage.name == result.stage).sections
    made = {**_made_with(root, result), **result.params}
    sections = {
        name: {**present[name], **made.get(name, {})} for name in dict.fromkeys([*made, *own]) if name in present
    }
    unchanged = all(sections[name] == present[name] for name in own)
    profile = result.profile or (params.profile if unchanged else None)
    leaves = {} if profile is None else {"profile": profile}
    for name, section in sections.items():
        # A lock file may have sections of an earlier version with keys that are gone.
        leaves |= {key: str(value)[:6000] for key, value in flatten(section, name)}
    return leaves


def _made_with(root: Path, result: StageResult) -> dict[str, Any]:
    """Return the sections with which the results behind a result were made, as far as lock file and adapters say it."""
    makers = {path: stage for stage in stages() for path in stage.outputs}
    lock, behind, queue = read_lock(root), [], [next(one for one in stages() if one.name == result.stage)]
    while queue:
        before = [makers[path] for path in queue.pop().inputs if path in makers]
        behind += before
        queue += before
    made: dict[str, Any] = {}
    for stage in stages():
        if stage in behind:
            made |= parameters(lock.get(stage.name, {}))
    # An adapter that was made by hand says itself how; that of the IMR also says it of the anchoring.
    adapter = root / ADAPTER
    if result.by_hand and result.stage == "evaluate" and (adapter / "config.json").is_file():
        for name in ("train_anchoring", "train_imr"):
            made |= (record_of(adapter, name) or {}).get("params", {})
    return made


class Discarded(StageFailed):
    """Somebody deleted the MLflow run of a result, which is therefore not recorded again."""


def record_results(root: Path, results: Sequence[StageResult], params: Params) -> None:
    """Record `results` without an MLflow run, as after `dvc repro`; those whose run somebody deleted are named."""
    for result in results:
        try:
            record_stage(root, result.stage, params, result=result)
        except Discarded as discarded:
            say(str(discarded))


def record_stage(
    root: Path, name: str, params: Params, *, anew: bool = False, result: StageResult | None = None
) -> str:
    """Record the present result of stage `name` and return the MLflow run's id.

    The run is the one that showed the stage while it ran, else a new one with the times of its execution where they are
    known. The parameters are those that made the result; `params` only adds sections of which nothing is recorded. An
    already recorded result gets only a tag for the Airflow run that used it. `result`: that of the stage, where the
    caller knows it. Raises UserError where the stage has not been run, StageFailed where its files do not belong
    together, and Discarded, unless `anew`, where somebody deleted the run of this result.
    """
    result = result or result_of(root, name)
    lineage = lineage_of(root, name, result)
    execution = read_execution(root, name)
    if execution is not None and not execution.made(root):
        execution = None  # of another result
    client = open_registry(root)
    # Two processes that record the same result at once give one run.
    with registry_lock(root, name=f"record-{name}"):
        live = run_of(client, execution)
        existing = finished_run(client, stage=name, lock_hash=lineage.lock_hash)
        if existing is not None and (live is None or live.info.status == "FINISHED"):
            if lineage.airflow_run_id:
                # A run id may have characters that are allowed in a tag's value but not in its name.
                used_by = f"dynamicid.used_by.{run_name(lineage.airflow_run_id)}"
                client.set_tag(existing, used_by, lineage.airflow_run_id)
            if parent := client.get_run(existing).data.tags.get(PARENT):
                end_parent(client, parent)  # the process that recorded it may have been killed before it did so
            leave_address(client, existing)
            return existing
        deleted = None if anew else finished_run(client, deleted=True, stage=name, lock_hash=lineage.lock_hash)
        if deleted is not None:
            if live is not None:
                client.delete_run(live.info.run_id)
                if parent := live.data.tags.get(PARENT):
                    end_parent(client, parent)
            raise Discarded(
                f"{name}: somebody deleted its MLflow run {deleted}, so it is not recorded again; `mlflow runs restore "
                f"--run-id {deleted}` brings it back, `dynamicid record {name}` makes a new one"
            )
        _fail_unfinished(client, lineage)
        return _record(client, root, result, lineage, params=params, execution=execution, live=live)


def _record(
    client: Tracking,
    root: Path,
    result: StageResult,
    lineage: Lineage,
    *,
    params: Params,
    execution: Execution | None,
    live: Any | None,
) -> str:
    """Write a result into its run, and what of it belongs to the whole chain into the run's parent."""
    from mlflow.entities import Metric

    name = result.stage
    start = None if execution is None else milliseconds(execution.start)
    end = None if execution is None or execution.end is None else milliseconds(execution.end)
    document = read_document(root / METRICS) if name == "evaluate" else {}
    tags = {**lineage.tags(), **(withheld_tags(document) if document else determinism_tag(root, name))}
    if execution is not None:
        tags["dynamicid.execution"] = execution.key
    if live is None:
        tags = {**source_tags(root, name.replace("_", "-"), now=False), **tags}
    numbers = stage_metrics(root, name)
    note = describe_run(name, document, numbers, restored=execution is None)
    known = None if live is None else live.info.run_id
    opened = open_run(client, name, {**tags, "mlflow.note.content": note}, run_id=known, start=start, end=lambda: end)
    with opened as run_id:
        leave_address(client, run_id)
        at = end or milliseconds(time.time())
        values = [Metric(key, number, at, 0) for key, number in numbers.items()]
        leaves, inputs = _parameters(root, result, params), dataset_inputs(root, result, lineage)
        log_values(client, run_id, leaves, [*_curves(root, name, execution, start or at), *values])
        if inputs:
            client.log_inputs(run_id, inputs)
        if document:
            log_tables(client, run_id, document)
        if execution is not None:
            log_samples(client, root, run_id, execution)
        for path in _ARTEFACTS.get(name, ()):
            if (root / path).is_file():
                client.log_artifact(run_id, str(root / path))
        if document and (root / REPORT).is_file():
            with tempfile.TemporaryDirectory() as folder:
                if write_sheet(root / REPORT, sheet := Path(folder) / "pictures.png"):
                    client.log_artifact(run_id, str(sheet))
        with writing(client) as writer:
            run = client.get_run(run_id)
            parent = run.data.tags.get(PARENT)
            parent = parent or parent_of(client, root, name, writer, run.info.start_time, by_hand=result.by_hand)
            if parent is not None:
                client.set_tag(run_id, PARENT, parent)
                add_to_parent(client, parent, leaves, values if name == "evaluate" else (), inputs)
                name_experiment(client, root, parent)
    if parent is not None:
        end_parent(client, parent)
    return run_id


def _curves(root: Path, stage: str, execution: Execution | None, begin: int) -> list[Any]:
    """Return the points of a loss curve (CSV with a column `step`) as MLflow metrics, each with the time of its row.

    A row of an earlier attempt, whose time nobody noted, has the time `begin`.
    """
    from mlflow.entities import Metric

    file = root / "reports" / stage / "losses.csv"
    if not file.is_file():
        return []
    times = {} if execution is None else {int(row["step"]): milliseconds(at) for at, row in execution.rows}
    found = []
    with file.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            step = int(row.pop("step"))
            at = times.get(step, begin)
            found += [Metric(key, float(text), at, step) for key, text in row.items() if text not in ("", "nan")]
    return found
