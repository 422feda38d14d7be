"""The parent of a chain's runs in MLflow: one run that groups those of its stages, whoever started them.

What a scheduler's run executes has one parent. Otherwise a stage joins the parent of the stages whose results it read,
as long as that has no finished run of it, of the evaluation or of a registration: a chain that has come to its end
stays as it is. Else a new chain begins. So `repro`, a stage at a time, a second attempt and `record` after `dvc repro`
group runs in the same way. A stage that DVC skips is no new run, and makes no parent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.core.chain import stages
from pipelines.core.errors import StageFailed, UserError
from pipelines.registry.faults import TrackingFault
from pipelines.registry.lineage import AIRFLOW_RUN_VARIABLE, source_tags
from pipelines.registry.results import result_of
from pipelines.registry.runs import (
    PARENT,
    continue_run,
    create_run,
    finished_run,
    log_tags,
    log_values,
    open_run,
    page_of,
    search_runs,
    writer_of,
    writing,
)
from pipelines.registry.tracking import Tracking
from pipelines.versions.dataset_version import current_version
from pipelines.versions.lock import experiment_of, lock_hash, read_lock

CHAIN = "chain"
# What ends a chain: nothing but the registration of its adapter follows.
_LAST = ("evaluate", "register")
# The tag with the name of the experiment, as `dvc exp run --name` has it.
_EXPERIMENT = "dynamicid.experiment"


def parent_of(
    client: Tracking,
    root: Path,
    stage: str,
    writer: Mapping[str, str],
    start: int | None = None,
    *,
    by_hand: bool = False,
) -> str | None:
    """Return the id of the parent for a new run of `stage`, RUNNING; made at `start` (ms since 1970) where none fits.

    None where somebody deleted the parent of the scheduler's run.
    """
    airflow = os.environ.get(AIRFLOW_RUN_VARIABLE)
    if airflow:
        key = {"stage": CHAIN, "airflow_run_id": airflow}
        if found := search_runs(client, None, key, 1):
            return continue_run(client, found[0].info.run_id, writer)
        if search_runs(client, None, key, 1, deleted=True):
            return None
    elif (joined := _upstream(client, root, stage, by_hand)) is not None:
        return continue_run(client, joined, writer)
    version = current_version(root).tag
    tags = {"dynamicid.stage": CHAIN, "dynamicid.airflow_run_id": airflow, "dynamicid.dataset_version": version}
    known = {key: value for key, value in tags.items() if value}
    known["mlflow.note.content"] = _describe(client, root, stage)
    name = airflow.rpartition("/")[2] if airflow else f"{CHAIN} {version or 'without a version'}"
    return create_run(client, name, {**source_tags(root, "repro"), **known, **writer}, start)


def add_to_parent(
    client: Tracking, parent: str, params: Mapping[str, str], metrics: Iterable[Any] = (), inputs: Iterable[Any] = ()
) -> None:
    """Add to a parent what a stage's run has: parameters that the parent lacks, metrics and datasets."""
    with suppress(TrackingFault):  # somebody deleted it meanwhile
        known = client.get_run(parent).data.params
        log_values(client, parent, {key: value for key, value in params.items() if key not in known}, list(metrics))
        if datasets := list(inputs):
            client.log_inputs(parent, datasets)


def name_experiment(client: Tracking, root: Path, parent: str) -> None:
    """Name a parent by the experiment of DVC whose results are in the checkout, if they are those of one."""
    if (experiment := experiment_of(root)) is None:
        return
    with suppress(TrackingFault):  # somebody deleted it meanwhile
        run = client.get_run(parent)
        if run.data.tags.get(_EXPERIMENT) != experiment:
            client.set_tag(parent, _EXPERIMENT, experiment)
            client.set_tag(parent, "mlflow.runName", f"{run.info.run_name}, {experiment}")


def end_parent(client: Tracking, parent: str) -> None:
    """End a parent as and when its stages ended, by the last run of each, whichever process is the last to ask.

    It stays RUNNING as long as a stage does; FAILED, or KILLED, where a stage is, until another attempt of it succeeds.
    A caller ends the run of its stage first, so that the last of two that end at once finds both.
    """
    children = search_runs(client, None, {PARENT: parent})
    # Attempts of a stage follow each other, and may have the same start: that of their process.
    children.sort(key=lambda run: math.inf if run.info.status == "RUNNING" else run.info.end_time or 0)
    newest = {run.data.tags.get("dynamicid.stage", run.info.run_id): run for run in children}
    states = {run.info.status: run for run in newest.values()}
    with suppress(TrackingFault):  # somebody deleted it meanwhile
        if "RUNNING" in states:
            # Whoever writes that run also holds the parent: `fail_abandoned` must not take it for left alone.
            log_tags(client, parent, writer_of(states["RUNNING"]))
            return
        status = next((one for one in ("FAILED", "KILLED") if one in states), "FINISHED")
        client.set_terminated(parent, status, max((run.info.end_time or 0 for run in children), default=None))


@contextmanager
def child_run(
    client: Tracking,
    root: Path,
    name: str,
    tags: Mapping[str, str],
    parent: str | None = None,
    *,
    start: int | None = None,
) -> Iterator[str]:
    """As `open_run`, of a run that belongs to `parent`; without one, to that of the scheduler's run, if any.

    The parent of the scheduler's run is RUNNING meanwhile; that of a chain that ended before stays as it is.
    """
    airflow, own = os.environ.get(AIRFLOW_RUN_VARIABLE), None
    with writing(client) as writer:
        made_by = client.get_run(parent).data.tags.get("dynamicid.airflow_run_id") if parent else airflow
        if airflow and made_by == airflow:
            own = parent_of(client, root, CHAIN, writer)
        grouped = {PARENT: found} if (found := parent or own) else {}
        try:
            with open_run(client, name, {**tags, **grouped}, start=start) as run_id:
                yield run_id
        except BaseException:
            if own:
                with suppress(Exception):  # one attempt, as that of `open_run`
                    end_parent(client.plain, own)
            raise
        if own:
            end_parent(client, own)


def _describe(client: Tracking, root: Path, stage: str) -> str:
    """Return the description of a chain that begins with `stage`: which runs made the results that it starts from."""
    lock, names = read_lock(root), [one.name for one in stages()]
    text = "The stages of one chain; a stage that DVC skips is in the chain that ran it.\n"
    for before in names[: names.index(stage)] if stage in names else ():
        run = finished_run(client, stage=before, lock_hash=lock_hash(root, before)) if before in lock else None
        if run is not None:
            text += f"\n- {before}: [{run}]({page_of(client.experiment_id(), run)})"
    return text


def _upstream(client: Tracking, root: Path, stage: str, by_hand: bool) -> str | None:
    """Return the newest parent, not at its end, of the runs whose results `stage` reads; without finished `stage`."""
    makers = {path: one.name for one in stages() for path in one.outputs}
    read = {makers[path] for one in stages() if one.name == stage for path in one.inputs if path in makers}
    lock, parents = read_lock(root), {}
    for maker in read:
        key = lock_hash(root, maker) if maker in lock else None
        if by_hand:
            with suppress(UserError, StageFailed):
                key = result_of(root, maker).key
        run = key and finished_run(client, stage=maker, lock_hash=key)
        parent = run and client.get_run(run).data.tags.get(PARENT)
        if parent:
            with suppress(TrackingFault):
                parents[parent] = client.get_run(parent)
    for run in sorted(parents.values(), key=lambda one: one.info.start_time, reverse=True):
        finished = search_runs(client, "FINISHED", {PARENT: run.info.run_id})
        ended = {stage, *_LAST} & {one.data.tags.get("dynamicid.stage") for one in finished}
        if run.info.lifecycle_stage == "active" and not ended:
            return str(run.info.run_id)
    return None
