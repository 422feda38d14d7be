"""Find model versions and MLflow runs that used a subject's photos, and delete artefacts that show them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.chain import FACES, known_stages
from pipelines.core.errors import StageFailed
from pipelines.core.files import sha256
from pipelines.operations.backup.locations import default_state
from pipelines.operations.stack.settings import stack_in, was_started
from pipelines.operations.stack.supervisor import is_running, status
from pipelines.registry.faults import TrackingFault
from pipelines.registry.live import SAMPLES_OF
from pipelines.registry.registry import MADE_FROM, TRAINED_HERE, made_from
from pipelines.registry.settings import database, own_uri
from pipelines.registry.tracking import ask, open_tracking


@dataclass(frozen=True)
class Traces:
    """What MLflow has of a subject.

    `models`: name, version, aliases, whether the model was trained or evaluated on the subject's photos (None: unknown,
    as their split is). `artefacts`: pictures that a run logged (`run_id`, `stage`, `path`). `runs`: ids of all runs on
    datasets with the subject.
    """

    models: list[dict[str, Any]]
    artefacts: list[dict[str, str]]
    runs: list[str]


def traces(root: Path, datasets: set[str], outputs: set[str], splits: frozenset[str]) -> tuple[Traces, list[str]]:
    """Return the traces of runs on `datasets` or with one of `outputs` (DVC's hashes, "….dir" for folders).

    Models are trained on people of the splits train and val, whom samples of a training show; reports show people of
    the split test; where `splits` is empty, which it was is unknown, and pictures are listed. Returns also a message
    for each MLflow of this checkout that does not answer.
    """
    found, silent = Traces([], [], []), []
    for name, variables in _trackers(root).items():
        if variables is None:
            silent.append(f"{name}: it does not run; `make stack` starts it")
            continue
        try:
            with _connected(root, variables) as client:
                here = _traces(client, datasets, outputs, splits)
        except StageFailed as error:
            silent.append(f"{name}: {error}")
            continue
        found = Traces(found.models + here.models, found.artefacts + here.artefacts, found.runs + here.runs)
    return found, silent


def _traces(client: Any, datasets: set[str], outputs: set[str], splits: frozenset[str]) -> Traces:
    trained = bool(splits & {"train", "val"}) if splits else None
    shown = "test" in splits if splits else None
    runs = _runs(client, lambda tags: _uses(tags, datasets, outputs), _filters(datasets, outputs))
    unknown = _runs(client, _shows_unknown_people, ["tags.`dynamicid.stage` = 'evaluate_champion'"])
    artefacts = [
        {"run_id": run.info.run_id, "stage": run.data.tags.get("dynamicid.stage", ""), "path": path}
        for run in (*runs, *unknown)
        if (trained if run.data.tags.get("dynamicid.stage", "").startswith("train_") else shown) is not False
        for path in _pages(client, run.info.run_id)
    ]
    ids = {run.info.run_id for run in runs}
    models = [
        {
            "name": version.name,
            "version": str(version.version),
            "aliases": sorted(client.get_model_version(version.name, version.version).aliases),
            "trained_on": False if version.tags.get(TRAINED_HERE) == "false" else trained,
            "evaluated_on": shown,
        }
        for version in _all(client.search_model_versions)
        if {version.run_id, version.tags.get("dynamicid.evaluate_run")} & ids or _uses(version.tags, datasets, outputs)
    ]
    return Traces(models, artefacts, sorted(ids))


def _filters(datasets: set[str], outputs: set[str]) -> list[str]:
    """Return filters of MLflow, each an alternative, that find every run that `_uses` accepts."""
    places = {FACES, *(path for stage in known_stages() for path in stage.outputs)}
    tags = [*((name, one) for one in sorted(datasets) for name in ("dynamicid.dataset_md5", SAMPLES_OF))]
    tags += [(f"dynamicid.output.{path}", one) for one in sorted(outputs) for path in sorted(places)]
    within = [f"tags.`{MADE_FROM}` LIKE '%{one}%'" for one in sorted(outputs)]
    return [*(f"tags.`{name}` = '{value}'" for name, value in tags), *within]


def _runs(client: Any, wanted: Callable[[dict[str, str]], bool], filters: list[str]) -> list[Any]:
    """Return the runs of all experiments that one of `filters` finds and whose tags are `wanted`, newest first."""
    experiments = [experiment.experiment_id for experiment in _all(client.search_experiments)]
    found = {
        run.info.run_id: run
        for one in filters
        for run in _all(client.search_runs, experiment_ids=experiments, filter_string=one)
        if wanted(run.data.tags)
    }
    return sorted(found.values(), key=lambda run: -run.info.start_time)


def use_of(model: dict[str, Any]) -> str:
    """Return how one of `Traces.models` used the subject's photos: "trained and evaluated"."""
    known, unknown = (
        [word for word in ("trained", "evaluated") if model[f"{word}_on"] is is_so] for is_so in (True, None)
    )
    return f"perhaps {' or '.join(unknown)} (their split is unknown)" if unknown else " and ".join(known)


def hashes_of(root: Path, artefacts: list[dict[str, str]]) -> set[str]:
    """Return the sha256 (hex) of these artefacts of runs."""
    hashes: set[str] = set()
    for client, run, path in _held(root, artefacts):
        with tempfile.TemporaryDirectory() as folder:
            hashes.add(sha256(Path(client.download_artifacts(run.info.run_id, path, folder))))
    return hashes


def delete_artefacts(root: Path, artefacts: list[dict[str, str]]) -> None:
    """Delete these artefacts of runs; metrics, parameters and models stay."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    for _, run, path in _held(root, artefacts):
        ask(get_artifact_repository(run.info.artifact_uri).delete_artifacts, path)


def _held(root: Path, artefacts: list[dict[str, str]]) -> Iterator[tuple[Any, Any, str]]:
    """Yield client, run and path of artefacts that are still there, connected to the MLflow that has them."""
    for variables in _trackers(root).values() if artefacts else ():
        if variables is None:
            continue
        with _connected(root, variables) as client:
            for item in artefacts:
                try:
                    run = client.get_run(item["run_id"])
                except TrackingFault:
                    continue  # a run of another MLflow
                if item["path"] in set(_pages(client, item["run_id"])):
                    yield client, run, item["path"]


def _trackers(root: Path) -> dict[str, dict[str, str] | None]:
    """Return the variables that lead to every MLflow that this checkout recorded in; None: a stack that does not run.

    Shells differ: work without the stack is in the checkout's own database, work of the DAGs in that of the stack.
    """
    found: dict[str, dict[str, str] | None] = {}
    own = own_uri(root)
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if database(root).is_file():
        found[f"MLflow in {database(root)}"] = {"MLFLOW_TRACKING_URI": own}
    if given and given != own:
        found[f"MLflow at {given.rpartition('@')[2]}"] = {"MLFLOW_TRACKING_URI": given}
    state = default_state(root)
    if was_started(state):
        stack = stack_in(state)
        running = is_running(stack) and status(stack).get("mlflow") == "RUNNING"
        variables = stack.environment() if running else {}
        login = {name: value for name, value in variables.items() if name.startswith("MLFLOW_TRACKING_")}
        found[f"MLflow of the stack in {state}"] = login or None
    return found


@contextmanager
def _connected(root: Path, variables: dict[str, str]) -> Iterator[Any]:
    """Yield a client of the MLflow that these variables name; afterwards the environment is as before."""
    import mlflow

    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield open_tracking(root)
    finally:
        mlflow.set_tracking_uri(before["MLFLOW_TRACKING_URI"])
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


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
    of_it = bool(datasets & {tags.get("dynamicid.dataset_md5"), tags.get(SAMPLES_OF)})
    return of_it or bool(outputs & set(made_from(tags).outputs.values()))


def _shows_unknown_people(tags: dict[str, str]) -> bool:
    """Whether a run is an evaluation of a champion by an earlier release, which did not name its dataset."""
    return tags.get("dynamicid.stage") == "evaluate_champion" and "dynamicid.dataset_md5" not in tags


def _pages(client: Any, run_id: str, folder: str | None = None) -> Iterator[str]:
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from _pages(client, run_id, item.path)
        elif item.path.endswith((".html", ".png", ".jpg", ".jpeg", ".webp")):
            yield item.path
