"""MLflow runs: search by tags, logging of many values, and runs that end with their true state."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.core.locks import hold, is_held
from pipelines.registry.settings import EXPERIMENT
from pipelines.registry.tracking import Tracking, make

# The most that a server accepts in one request.
_PARAMS, _METRICS = 100, 1000
# The tag of a run's writer, `<host>:<checkout>:<number>`: the process holds a lock file of that number while it writes.
_WRITER = "dynamicid.writer"
# MLflow's own tag of a run that belongs to another one.
PARENT = "mlflow.parentRunId"
_PLAIN = re.compile(r"[\w .:/@+-]*", re.ASCII)
_PAGE = 1000
# Names a file for the address of the run on MLflow's pages, which Airflow links.
RUN_VARIABLE = "DYNAMICID_RUN_FILE"
# The address of MLflow's pages in a browser, where it is not the one that this process uses.
PAGES_VARIABLE = "DYNAMICID_MLFLOW_PAGES"


def leave_address(client: Any, run_id: str) -> None:
    """Write the address of a run on MLflow's pages to the file that the caller named, if it named one.

    Nothing is written where MLflow has no server. User and password of the address are left out.
    """
    file, server = os.environ.get(RUN_VARIABLE), os.environ.get(PAGES_VARIABLE) or client.tracking_uri
    if not file or not server.startswith(("http://", "https://")):
        return
    parts = urlsplit(server)
    pages = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/"), query="", fragment="")
    with contextlib.suppress(Exception):  # a link is worth no failure of a stage
        experiment = client.get_run(run_id).info.experiment_id
        Path(file).write_text(f"{pages.geturl()}/{page_of(experiment, run_id)}", encoding="utf-8")


def page_of(experiment: str, run_id: str) -> str:
    """Return the page of a run below MLflow's address, in the mode for trainings; MLflow opens that for GenAI first."""
    return f"#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"


def search_runs(
    client: Tracking, status: str | None, tags: Mapping[str, str], most: int = 1000, *, deleted: bool = False
) -> list[Any]:
    """Return at most `most` runs of the experiment, newest first, with a status (`FINISHED` …; None: any) and `tags`.

    The names of tags are given without their prefix `dynamicid.`. With `deleted`, those that somebody deleted instead.
    """
    from mlflow.entities import ViewType

    # MLflow's filters have no way to write a quote in a value: such a tag is compared here.
    wanted = {name if name == PARENT else f"dynamicid.{name}": value for name, value in tags.items()}
    plain = [f"tags.`{name}` = '{value}'" for name, value in wanted.items() if _PLAIN.fullmatch(value)]
    plain += [] if status is None else [f"attributes.status = '{status}'"]
    rest = {name: value for name, value in wanted.items() if not _PLAIN.fullmatch(value)}
    found: list[Any] = []
    token = None
    while len(found) < most:
        page = client.search_runs(
            [client.get_experiment_by_name(EXPERIMENT).experiment_id],
            filter_string=" and ".join(plain),
            run_view_type=ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY,
            max_results=_PAGE if rest else most,
            page_token=token,
        )
        fits = (run for run in page if all(run.data.tags.get(name) == rest[name] for name in rest))
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
def open_run(
    client: Tracking,
    name: str,
    tags: Mapping[str, str],
    *,
    run_id: str | None = None,
    start: int | None = None,
    end: Callable[[], int | None] = lambda: None,
) -> Iterator[str]:
    """Yield the id of a run, which ends FINISHED, or FAILED on an error, or KILLED where the process is ended.

    The run is new, or `run_id`, which is continued. `start` and `end()` are times in milliseconds since 1970, by
    default the present. Runs that a killed process of this checkout left RUNNING become FAILED first. Raises UserError
    where somebody deleted the experiment.
    """
    import typer

    with writing(client) as writer, _terminable():
        run = (
            create_run(client, name, {**tags, **writer}, start)
            if run_id is None
            else continue_run(client, run_id, writer)
        )
        try:
            if run_id is not None:
                log_tags(client, run, tags)  # before any picture, which `forget` finds by them
            yield run
        except BaseException as error:
            killed = not isinstance(error, Exception)
            # One attempt: where the server is away, the next run of this checkout marks this one as failed.
            with contextlib.suppress(Exception):
                client.plain.set_terminated(run, "KILLED" if killed else "FAILED")
            if killed:
                typer.echo(f"ended by a signal: MLflow run {run} counts as killed; run again", err=True)
            raise
        client.set_terminated(run, "FINISHED", end())


@contextlib.contextmanager
def writing(client: Tracking) -> Iterator[dict[str, str]]:
    """Yield the tag of runs that this process writes: while the block lasts, nobody takes them for abandoned."""
    client.experiment_id()
    fail_abandoned(client)
    number = uuid.uuid4().hex
    lock = client.home / ".dynamicid" / "writing" / f"{number}.lock"
    with hold(lock, RuntimeError(str(lock))):
        try:
            yield {_WRITER: f"{_checkout(client)}:{number}"}
        finally:
            lock.unlink(missing_ok=True)


def writer_of(run: Any) -> dict[str, str]:
    """Return the tag of the process that writes a run, if it has one."""
    return {name: value for name, value in run.data.tags.items() if name == _WRITER}


def create_run(client: Tracking, name: str, tags: Mapping[str, str], start: int | None = None) -> str:
    """Create a RUNNING run with `tags`, among them that of `writing`, and return its id; `start` as in `open_run`."""
    experiment = client.experiment_id()
    number = tags[_WRITER].rpartition(":")[2]

    def find() -> Any | None:
        # Not the whole tag: the path of a checkout may have quotes.
        mine = f"tags.`{_WRITER}` LIKE '%:{number}'"
        mine += f" and tags.`mlflow.runName` = '{name}'" if _PLAIN.fullmatch(name) else ""
        found = client.plain.search_runs([experiment], mine, max_results=1)
        return found[0] if found else None

    def create() -> Any:
        return client.plain.create_run(experiment, start_time=start, run_name=name, tags=dict(tags))

    return str(make(create, find).info.run_id)


def continue_run(client: Tracking, run_id: str, writer: Mapping[str, str]) -> str:
    """Make a run RUNNING again, written by the holder of the tag `writer`, and return its id."""
    log_tags(client, run_id, writer)
    client.update_run(run_id, "RUNNING")
    return run_id


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


def log_tags(client: Tracking, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    from mlflow.entities import RunTag

    entities = [RunTag(key, value) for key, value in tags.items()]
    for start in range(0, len(entities), _PARAMS):
        client.log_batch(run_id, tags=entities[start : start + _PARAMS])


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
