"""Find model versions and MLflow runs that used a subject's photos, and delete artefacts that show them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.registry.settings import database
from pipelines.registry.tracking import ask, open_tracking

_OUTPUT = "dynamicid.output."


@dataclass(frozen=True)
class Traces:
    """What MLflow has of a subject.

    `models`: name, version, aliases, whether the model was trained or evaluated on the subject's photos. `artefacts`:
    pictures that a run logged (`run_id`, `stage`, `path`). `runs`: ids of all runs on datasets with the subject.
    """

    models: list[dict[str, Any]]
    artefacts: list[dict[str, str]]
    runs: list[str]


def traces(root: Path, datasets: set[str], outputs: set[str], splits: frozenset[str]) -> Traces:
    """Return the traces of runs on `datasets` or with one of `outputs` (DVC's hashes, "….dir" for folders).

    Models are trained on people of the splits train and val, reports show people of the split test; for unknown splits
    both are assumed.
    """
    if not database(root).is_file() and not os.environ.get("MLFLOW_TRACKING_URI"):
        return Traces([], [], [])
    client = open_tracking(root)
    trained = not splits or bool(splits & {"train", "val"})
    shown = not splits or "test" in splits
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    recorded = _all(client.search_runs, experiment_ids=experiments)
    runs = [run for run in recorded if _uses(run.data.tags, datasets, outputs)]
    artefacts = [
        {"run_id": run.info.run_id, "stage": run.data.tags.get("dynamicid.stage", ""), "path": path}
        for run in runs
        if shown
        for path in _pages(client, run.info.run_id)
    ]
    ids = {run.info.run_id for run in runs}
    models = [
        {
            "name": version.name,
            "version": str(version.version),
            "aliases": sorted(client.get_model_version(version.name, version.version).aliases),
            "trained_on": trained,
            "evaluated_on": shown,
        }
        for version in _all(client.search_model_versions)
        if version.run_id in ids or _uses(version.tags, datasets, outputs)
    ]
    return Traces(models, artefacts, sorted(ids))


def delete_artefacts(root: Path, artefacts: list[dict[str, str]]) -> None:
    """Delete these artefacts of runs; metrics, parameters and models stay."""
    if not artefacts:
        return
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = open_tracking(root)
    for item in artefacts:
        repository = get_artifact_repository(client.get_run(item["run_id"]).info.artifact_uri)
        ask(repository.delete_artifacts, item["path"])


def _all(search: Callable[..., Any], **wanted: Any) -> Iterator[Any]:
    """Yield the results of a paged search of MLflow, from all pages."""
    token: str | None = None
    while True:
        page = search(max_results=1000, page_token=token, **wanted)
        yield from page
        token = page.token
        if not token:
            return


def _uses(tags: dict[str, str], datasets: set[str], outputs: set[str]) -> bool:
    made = {value for key, value in tags.items() if key.startswith(_OUTPUT)}
    return tags.get("dynamicid.dataset_md5") in datasets or bool(made & outputs)


def _pages(client: Any, run_id: str, folder: str | None = None) -> Iterator[str]:
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from _pages(client, run_id, item.path)
        elif item.path.endswith((".html", ".png", ".jpg", ".jpeg")):
            yield item.path
