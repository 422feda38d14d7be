"""MLflow runs: search by tags, logging of many values, and runs that end with their true state."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.core.locks import hold, is_held
from pipelines.registry.settings import EXPERIMENT
from pipelines.registry.tracking import Tracking, make

# The most that a server accepts in one request.
_PARAMS, _METRICS = 100, 1000
# The tag of a run's writer, `<host>:<checkout>:<number>`: the process holds a lock file of that number while it writes.
_WRITER = "dynamicid.writer"
_PLAIN = re.compile(r"[\w .:/@+-]*", re.ASCII)
_PAGE = 1000


def search_runs(
    client: Tracking, status: str, tags: Mapping[str, str], most: int = 1000, *, deleted: bool = False
) -> list[Any]:
    """Return at most `most` runs of the experiment, newest first, with a status (`FINISHED` …) and `tags`.

    The names of tags are given without their prefix `dynamicid.`. With `deleted`, those that somebody deleted instead.
    """
    from mlflow.entities import ViewType

    # MLflow's filters have no way to write a quote in a value: such a tag is compared here.
    plain = [f"tags.`dynamicid.{name}` = '{value}'" for name, value in tags.items() if _PLAIN.fullmatch(value)]
    rest = {name: value for name, value in tags.items() if not _PLAIN.fullmatch(value)}
    found: list[Any] = []
    token = None
    while len(found) < most:
        page = client.search_runs(
            [client.get_experiment_by_name(EXPERIMENT).experiment_id],
            filter_string=" and ".join([*plain, f"attributes.status = '{status}'"]),
            run_view_type=ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY,
            max_results=_PAGE if rest else most,
            page_token=token,
        )
        fits = (run for run in page if all(run.data.tags.get(f"dynamicid.{name}") == rest[name] for name in rest))
        found += fits
        token = page.token
        if not token:
            break
    return found[:most]


def finished_run(client: Tracking, *, deleted: bool = False, **tags: str) -> str | None:
    """Return the id of the newest finished run with `tags`, or None where there is none; both as in `search_runs`."""
    found = search_runs(client, "FINISHED", tags, 1, deleted=deleted)
    return found[0].info.run_id if found else None


@contextlib.contextmanager
def open_run(client: Tracking, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Yield the id of a new run, which ends FINISHED, or FAILED on an error, or KILLED where the process is ended.

    Runs that a killed process of this checkout left RUNNING become FAILED first. Raises UserError where somebody
    deleted the experiment.
    """
    import typer

    experiment = client.experiment_id()
    fail_abandoned(client)
    locks, number = client.home / ".dynamicid" / "writing", uuid.uuid4().hex
    writer = f"{_checkout(client)}:{number}"

    def find() -> Any | None:
        # Not the whole tag: the path of a checkout may have quotes.
        found = client.plain.search_runs([experiment], f"tags.`{_WRITER}` LIKE '%:{number}'", max_results=1)
        return found[0] if found else None

    lock = locks / f"{number}.lock"
    with hold(lock, RuntimeError(str(lock))), _terminable():
        try:
            run = make(lambda: client.plain.create_run(experiment, run_name=name, tags={**tags, _WRITER: writer}), find)
            run_id: str = run.info.run_id
            try:
                yield run_id
            except BaseException as error:
                killed = not isinstance(error, Exception)
                # One attempt: where the server is away, the next run of this checkout marks this one as failed.
                with contextlib.suppress(Exception):
                    client.plain.set_terminated(run_id, "KILLED" if killed else "FAILED")
                if killed:
                    typer.echo(f"ended by a signal: MLflow run {run_id} counts as killed; run again", err=True)
                raise
            client.set_terminated(run_id, "FINISHED")
        finally:
            lock.unlink(missing_ok=True)


def fail_abandoned(client: Tracking) -> None:
    """Mark as FAILED the runs of this checkout whose process is gone, and delete the models that they left."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    locks = client.home / ".dynamicid" / "writing"
    for run in search_runs(client, "RUNNING", {}):
        checkout, _, number = run.data.tags.get(_WRITER, "").rpartition(":")
        if checkout != _checkout(client) or is_held(locks / f"{number}.lock"):
            continue
        with contextlib.suppress(Exception):
            mine = f"source_run_id = '{run.info.run_id}'"
            for model in client.plain.search_logged_models([run.info.experiment_id], filter_string=mine):
                get_artifact_repository(model.artifact_location).delete_artifacts("")
                client.plain.delete_logged_model(model.model_id)
        client.set_terminated(run.info.run_id, "FAILED")
        (locks / f"{number}.lock").unlink(missing_ok=True)


def log_values(client: Tracking, run_id: str, params: Mapping[str, str], metrics: Sequence[Any]) -> None:
    """Log parameters and metrics (MLflow's `Metric`) of a run in batches; repeated, they stay the same."""
    from mlflow.entities import Param

    entities = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(entities), _PARAMS):
        client.log_batch(run_id, params=entities[start : start + _PARAMS])
    for start in range(0, len(metrics), _METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS])


def _checkout(client: Tracking) -> str:
    return f"{socket.gethostname()}:{client.home}"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into SystemExit with its exit code during the block, unless the program has a handler of its own."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    if mine:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
