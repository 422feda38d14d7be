"""Show a stage in MLflow while DVC runs it: a run with the true start, loss curve and system metrics.

A thread of the process that waits for DVC reads what the stage notes (`core/execution.py`). A stage that DVC skips
notes nothing, and gets no run. Where MLflow is away, the stage is recorded afterwards: `recorder.record_stage` finds
the run by the key of the execution and completes it, or makes it.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.execution import FOLDER, Execution, read_execution
from pipelines.registry.lineage import AIRFLOW_RUN_VARIABLE, source_tags
from pipelines.registry.parents import end_parent, parent_of
from pipelines.registry.registry import open_registry, registry_lock
from pipelines.registry.runs import PARENT, create_run, leave_address, search_runs, writing
from pipelines.registry.tracking import Tracking
from pipelines.versions.dataset_version import current_version

SAMPLES_OF = "dynamicid.samples_of"
"""The tag with the dataset (DVC's hash) whose people the sample pictures of a run show."""
_PAUSE = 1.0  # seconds between two looks at the file of the execution
_PATIENCE = 30.0  # seconds that the end of a stage waits for MLflow


@contextmanager
def live_run(root: Path, stage: str) -> Iterator[None]:
    """Show `stage` in MLflow while the block runs it; where the block fails, its run becomes FAILED with the reason.

    After a block that succeeds the run is still RUNNING: `record_stage` completes it.
    """
    follower = _Follower(root, stage)
    follower.start()

    def end(number: int, _: Any) -> None:
        follower.finish(SystemExit(f"ended by signal {number}"))
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException as error:
        follower.finish(error)
        raise
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    follower.finish(None)


def run_of(client: Tracking, execution: Execution | None) -> Any | None:
    """Return the run of an execution, in any state; None where there is none."""
    found = [] if execution is None else search_runs(client, None, {"execution": execution.key}, 1)
    return found[0] if found else None


def milliseconds(seconds: float) -> int:
    """Return a time as MLflow has it."""
    return round(seconds * 1000)


def points(execution: Execution, skip: int = 0) -> list[Any]:
    """Return the loss curve that an execution noted, without its first `skip` rows, as metrics of MLflow.

    With six significant digits, as in `losses.csv`: the same points again change nothing.
    """
    from mlflow.entities import Metric

    return [
        Metric(name, float(f"{value:.6g}"), milliseconds(at), int(row["step"]))
        for at, row in execution.rows[skip:]
        for name, value in row.items()
        if name != "step" and value is not None and not math.isnan(value)
    ]


def log_samples(client: Any, root: Path, run_id: str, execution: Execution) -> None:
    """Log the grids of sample pictures that an execution noted to its run, those that it does not have yet.

    The run names the dataset first, since they show its people.
    """
    import numpy as np
    from PIL import Image

    if not execution.samples:
        return
    client.set_tag(run_id, SAMPLES_OF, current_version(root).md5 or "")
    known = " ".join(item.path for item in client.list_artifacts(run_id, "images"))
    for at, step, name in execution.samples:
        if not re.search(rf"samples\D+step\D+{step}\D", known):
            with Image.open(root / FOLDER / execution.stage / name) as picture:
                pixels = np.asarray(picture)
            client.log_image(run_id, pixels, key="samples", step=step, timestamp=milliseconds(at), synchronous=True)


class _Follower(threading.Thread):
    """Reads the executions of a stage and writes them to MLflow until it is stopped."""

    def __init__(self, root: Path, stage: str) -> None:
        super().__init__(name=f"live {stage}", daemon=True)
        self._root, self._stage = root, stage
        before = read_execution(root, stage)
        self._before = None if before is None else before.key
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._too_late = False

    def finish(self, error: BaseException | None) -> None:
        """Write the rest and stop."""
        self._error = error
        self._ended.set()
        self.join(_PATIENCE)
        self._too_late = self.is_alive()  # MLflow is away: whoever records the stage makes its run

    def run(self) -> None:
        """Wait for the execution, then follow it; a fault of MLflow is printed once."""
        while True:
            ended = self._ended.is_set()  # asked first: a stage may begin and end after the file was read
            if (execution := self._execution()) is not None:
                break
            if ended:
                return
            self._ended.wait(_PAUSE)
        try:
            self._follow(execution)
        except Exception as error:
            if not self._ended.is_set():
                reason = str(error) if isinstance(error, UserError | StageFailed) else type(error).__name__
                typer.echo(f"{self._stage}: not shown in MLflow while it runs ({reason})", err=True)

    def _execution(self) -> Execution | None:
        execution = read_execution(self._root, self._stage)
        return None if execution is None or execution.key == self._before else execution

    def _follow(self, execution: Execution) -> None:
        client = open_registry(self._root)
        with ExitStack() as stack:
            writer = stack.enter_context(writing(client))
            with registry_lock(self._root, name=f"record-{self._stage}"):
                if self._too_late:
                    return
                start = milliseconds(execution.start)
                parent = parent_of(client, self._root, self._stage, writer, start)
                run_id = create_run(client, self._stage, {**self._tags(execution, parent), **writer}, start)
            leave_address(client.plain, run_id)
            with _system_metrics(run_id):
                written = drawn = 0
                while True:
                    ended = self._ended.wait(_PAUSE)
                    execution = self._execution() or execution
                    with suppress(Exception):  # the server is away: the next turn, or `record_stage`, writes them
                        new = points(execution, written)
                        for start in range(0, len(new), 1000):
                            client.plain.log_batch(run_id, metrics=new[start : start + 1000])
                        written = len(execution.rows)
                        if len(execution.samples) > drawn:
                            log_samples(client.plain, self._root, run_id, execution)
                            drawn = len(execution.samples)
                    if ended:
                        break
            if self._error is not None:
                self._fail(client, run_id, parent, execution)

    def _tags(self, execution: Execution, parent: str | None) -> dict[str, str]:
        tags = {
            **source_tags(self._root, self._stage.replace("_", "-")),
            "dynamicid.stage": self._stage,
            "dynamicid.execution": execution.key,
            "dynamicid.airflow_run_id": os.environ.get(AIRFLOW_RUN_VARIABLE),
            PARENT: parent,
        }
        return {name: value for name, value in tags.items() if value}

    def _fail(self, client: Tracking, run_id: str, parent: str | None, execution: Execution) -> None:
        status = "FAILED" if isinstance(self._error, Exception) else "KILLED"
        end = milliseconds(execution.end or time.time())
        client.plain.set_tag(run_id, "dynamicid.reason", str(self._error)[:5000] or type(self._error).__name__)
        client.plain.set_terminated(run_id, status, end)
        if parent is not None:
            end_parent(client, parent)


@contextmanager
def _system_metrics(run_id: str) -> Iterator[None]:
    """Log the use of processor, memory, disk, network and GPU of this machine to a run during the block."""
    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
    try:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(run_id)
        monitor.start()
    except Exception:  # without psutil, or where the machine does not show it
        yield
        return
    try:
        yield
    finally:
        monitor.finish()
