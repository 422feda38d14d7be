"""The champion's metrics under the challenger's conditions; where its own differ, it is evaluated again, once."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.chain import stages
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import folder_sha256
from pipelines.core.params import Params
from pipelines.core.screen import say
from pipelines.evaluation.belonging import weights_sha256
from pipelines.evaluation.headline import comparable_settings
from pipelines.evaluation.plan import DRAWN
from pipelines.registry.contents import describe_run, evaluation_metrics, flatten, log_tables
from pipelines.registry.decisions import judged_figures
from pipelines.registry.faults import TrackingFault
from pipelines.registry.gates import Champion
from pipelines.registry.registry import open_registry
from pipelines.registry.runs import finished_run, log_values, open_run
from pipelines.registry.tracking import Tracking
from pipelines.versions.state import EVALUATION, shared_state


def conditions(metrics: dict[str, Any]) -> str:
    """Return the sha256 (hex) of evaluation set and settings; only results with equal hashes may be compared."""
    given = {"evaluation_set": metrics["evaluation_set"], "settings": comparable_settings(metrics)}
    text = json.dumps(given, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def champion_metrics(version: Any, params: Params, processed: Path, challenger: dict[str, Any], root: Path) -> Champion:
    """Return the champion with its metrics under the challenger's conditions.

    They are read from its last evaluation, the one that it was registered with, or an earlier comparison. Where none is
    under these conditions and has the variants of the gates, or somebody removed it, its adapter is evaluated now, on
    its own base and the present evaluation set, and the result is recorded as a separate run.
    """
    client, wanted, compared = open_registry(root), conditions(challenger), _compared(params)
    tags = {"conditions": wanted, "model": version.name, "model_version": str(version.version)}
    own = dict.fromkeys((judged_figures(version).run_id, version.tags.get("dynamicid.evaluate_run")))
    for run_id in (*own, finished_run(client, **tags)):
        metrics = _document(client, run_id) if run_id else None
        if metrics is not None and conditions(metrics) == wanted and compared <= set(metrics):
            say(f"register: champion v{version.version} has these figures (MLflow run {run_id}), nothing is drawn")
            break
    else:
        metrics = _judge_again(version, params, processed, wanted, root)
    return Champion(str(version.version), metrics)


def files_problem(version: Any) -> str | None:
    """Return why the adapter of a registered version is not the one that was registered; None where it is.

    Versions that somebody else made have no hash, and are taken as they are.
    """
    from pipelines.registry.model_uri import downloaded_adapter

    uri = f"models:/{version.name}/{version.version}"
    registered = version.tags.get("dynamicid.adapter_hash")
    if registered is None:
        return None
    try:
        present = folder_sha256(downloaded_adapter(uri))
    except (TrackingFault, OSError) as error:
        return f"{uri}: its files cannot be read ({' '.join(str(error).split())})"
    if registered != present:
        return f"{uri}: its adapter is {present[:12]}, {registered[:12]} was registered: its files were changed"
    return None


def figures_problem(client: Tracking, version: Any) -> str | None:
    """Return why the figures of a registered version are not those of its adapter; None where they are.

    Versions of earlier releases may have been registered with figures of another adapter.
    """
    from pipelines.registry.model_uri import downloaded_adapter

    run_id = version.tags.get("dynamicid.evaluate_run")
    if (problem := files_problem(version)) or run_id is None:
        return problem  # without a run there is nothing to compare: the gates were never checked on figures
    measured = (_document(client, run_id) or {}).get("settings", {}).get("adapter")
    uri = f"models:/{version.name}/{version.version}"
    if measured not in (None, weights := weights_sha256(downloaded_adapter(uri))):
        return f"{uri}: its figures (run {run_id}) are of the adapter {measured[:12]}, it has {weights[:12]}"
    return None


def _document(client: Tracking, run_id: str) -> dict[str, Any] | None:
    """Return the metrics that a run recorded, or None where the run or the file was removed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = client.download_artifacts(run_id, "metrics.json", folder)
        except TrackingFault as fault:
            if not fault.missing:
                raise
            return None
        except FileNotFoundError:
            return None
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))


def _compared(params: Params) -> set[str]:
    """Return the variants that the gates compare, of those that an adapter draws alone."""
    return {gate.variant for gate in params.register_.gates} & set(DRAWN)


def _judge_again(version: Any, params: Params, processed: Path, wanted: str, root: Path) -> dict[str, Any]:
    from pipelines.core.params import load_params
    from pipelines.registry.model_uri import adapter_folder

    uri = f"models:/{version.name}/{version.version}"
    adapter = adapter_folder(uri, root)
    # The adapter fits only its own base; all else is as for the challenger. The shipped adapter is left out, since it
    # might not fit that base.
    own = load_params(adapter.parent / "params.yaml")
    _check_comparable(own, params)
    say(
        f"register: champion v{version.version} has no figures on this evaluation set with these settings, so "
        "those of its pictures that gates compare are drawn again, once; the result is kept in MLflow for later "
        "comparisons"
    )
    fewer = params.evaluate.model_copy(update={"sweeps": False})
    alike = params.model_copy(update={"base": own.base, "evaluate": fewer})
    with evaluated_alone(alike, processed, adapter, root, _compared(params)) as alone:
        if conditions(alone.metrics) != wanted:
            raise StageFailed(
                f"champion v{version.version} cannot be compared: reports/metrics.json of the challenger was made from "
                "other data or settings than are here now, or the two adapters sample by other conventions; "
                "`dynamicid repro evaluate`, then register"
            )
        tags = {"stage": "evaluate_champion", "model": version.name, "model_version": str(version.version)}
        alone.record(root, f"evaluate {version.name} v{version.version}", tags)
    return alone.metrics


@dataclass(frozen=True)
class Alone:
    """The evaluation of one adapter beside the chain's: its `metrics`, their `file`, and the `report`.

    `params`: those that it was made with; `start`: when it began, in seconds since 1970.
    """

    metrics: dict[str, Any]
    file: Path
    report: Path
    params: Params
    start: float

    def record(self, root: Path, name: str, tags: dict[str, str]) -> str:
        """Record it in MLflow as an evaluation, with its conditions and `tags` (without their prefix); return its id.

        The report shows people, so it is kept only where the dataset they are from is known: `forget` finds it by that.
        """
        from mlflow.entities import Metric

        from pipelines.registry.lineage import source_tags

        client, end = open_registry(root), round(time.time() * 1000)
        every = {**tags, "conditions": conditions(self.metrics), "evaluation_set": self.metrics["evaluation_set"]}
        shown, numbers = photos_of(root), evaluation_metrics(self.metrics)
        named = {f"dynamicid.{key}": value for key, value in every.items()} | shown | source_tags(root, "register")
        named["mlflow.note.content"] = describe_run("evaluate", self.metrics, numbers, restored=False)
        given = self.params.model_dump(mode="json", by_alias=True)
        own = next(stage.sections for stage in stages() if stage.name == "evaluate")
        leaves = {key: str(value)[:6000] for section in own for key, value in flatten(given[section], section)}
        with open_run(client, name, named, start=round(self.start * 1000)) as run_id:
            log_values(client, run_id, leaves, [Metric(key, value, end, 0) for key, value in numbers.items()])
            log_tables(client, run_id, self.metrics)
            client.log_artifact(run_id, str(self.file))
            if shown:
                client.log_artifact(run_id, str(self.report))
        return run_id


def photos_of(root: Path) -> dict[str, str]:
    """Return the tags of the dataset and the processed photos in `root`; none where nothing says what they are."""
    from pipelines.registry.lineage import lineage_of

    try:
        known = lineage_of(root, "preprocess").tags()
    except (UserError, StageFailed):
        return {}
    return {
        key: value
        for key, value in known.items()
        if key.startswith("dynamicid.output.") or key.startswith("dynamicid.dataset_")
    }


@contextmanager
def evaluated_alone(
    params: Params, processed: Path, adapter: Path, root: Path, variants: Collection[str] = DRAWN
) -> Iterator[Alone]:
    """Yield the evaluation of `adapter` on `processed` without another adapter beside it; raises as `evaluate`.

    Pictures that `evaluate` has drawn in the checkout `root` are taken from there.
    """
    from pipelines.evaluation.evaluate import evaluate

    alone = params.evaluate.model_copy(update={"shipped_adapter": None, "protocol": "ours"})
    settings, start = params.model_copy(update={"evaluate": alone}), time.time()
    with tempfile.TemporaryDirectory() as folder:
        file, report = Path(folder) / "metrics.json", Path(folder) / "index.html"
        files: dict[str, Any] = {"metrics": file, "report": report, "work": shared_state(root) / EVALUATION}
        document = evaluate(settings, processed, adapter, variants=variants, **files)
        yield Alone(document, file, report, settings, start)


def _check_comparable(own: Params, params: Params) -> None:
    """Raise UserError where the champion draws at another resolution or is conditioned by another recogniser."""
    for name, its, present in (
        ("base.resolution", own.base.resolution, params.base.resolution),
        ("preprocess.insightface_name", own.preprocess.insightface_name, params.preprocess.insightface_name),
    ):
        if its != present:
            raise UserError(f"it was trained with {name} {its}, the present data and parameters have {present}")
