"""MLflow runs: search by tags, and logging of many values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.registry.settings import EXPERIMENT

# The most that a server accepts in one request.
_PARAMS, _METRICS = 100, 1000


def search_runs(client: Any, status: str, tags: Mapping[str, str], most: int = 1000) -> list[Any]:
    """Return at most `most` runs of the experiment, newest first, with a status (`FINISHED` …) and `tags`.

    The names of tags are given without their prefix `dynamicid.`.
    """
    wanted = [f"tags.`dynamicid.{name}` = '{value}'" for name, value in tags.items()]
    return list(
        client.search_runs(
            [client.get_experiment_by_name(EXPERIMENT).experiment_id],
            filter_string=" and ".join([*wanted, f"attributes.status = '{status}'"]),
            max_results=most,
        )
    )


def finished_run(client: Any, **tags: str) -> str | None:
    """Return the id of the newest finished run with `tags`, as in `search_runs`, or None where there is none."""
    found = search_runs(client, "FINISHED", tags, 1)
    return found[0].info.run_id if found else None


def log_values(client: Any, run_id: str, params: Mapping[str, str], metrics: Sequence[Any]) -> None:
    """Log parameters and metrics (MLflow's `Metric`) of a run in batches."""
    from mlflow.entities import Param

    entities = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(entities), _PARAMS):
        client.log_batch(run_id, params=entities[start : start + _PARAMS])
    for start in range(0, len(metrics), _METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS])
