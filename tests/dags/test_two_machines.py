"""A whole dynamicid_train, its tasks in turn on two machines without a common disk, one of which dies while it trains.

The machines have folders and homes of their own. They share a git repository, an object store for DVC, an MLflow server
and PostgreSQL for locks. Each task is the command line that its DAG gives to Airflow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.chain import stage_names
from pipelines.versions.workspace import run_name
from tests.dags.test_dag_run import FORM
from tests.dags.test_dynamicid_train import dag
from tests.pipelines.conftest import empty_database
from tests.pipelines.object_store import BUCKET, objects, s3_server
from tests.pipelines.operations.stacks import needs_postgres, own_database
from tests.pipelines.registry.test_register_at_a_server import server
from tests.processes import dvc, git, run, wait_until

__all__ = ["dag", "empty_database", "server"]
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600), needs_postgres]
RUN = "dynamicid_train/manual__2026-01-01"
KILLED = "train_anchoring"
ORDER = ("plan", "workspace", "ingest", "doctor", "validate", "preprocess", "validate_processed", "drift")
ORDER += ("train_anchoring", "train_imr", "evaluate", "save_run", "register")


@dataclass(frozen=True)
class Machine:
    """The checkout of a machine, and the environment of its Airflow worker."""

    home: Path
    env: dict[str, str]

    @property
    def workspace(self) -> Path:
        """The workspace of the run."""
        return self.home / ".dynamicid" / "runs" / run_name(RUN)

    def start(self, script: str, form: dict[str, Any]) -> subprocess.Popen[str]:
        """Start a task as Airflow's worker does: in a process group of its own."""
        env = {**self.env, "DYNAMICID_FORM": json.dumps(form)}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(["bash", "-c", script], cwd=self.home, env=env, start_new_session=True, **pipes)

    def do(self, script: str, form: dict[str, Any]) -> str:
        """Do a task and return its result, the last line of its output."""
        task = self.start(script, form)
        printed = task.communicate()[0]
        assert task.returncode == 0, f"{script}\n{printed[-5000:]}"
        return printed.strip().splitlines()[-1]


@pytest.fixture
def machines(checkout: Path, project: Path, server: str, tmp_path: Path) -> Iterator[list[Machine]]:
    """Two machines."""
    shared = tmp_path / "shared.git"
    git(tmp_path, "clone", "-q", "--bare", str(checkout), str(shared))
    with s3_server() as store, own_database(project) as (locks, _, _):
        made = []
        for name in ("first", "second"):
            home = tmp_path / name / "dynamicid"
            git(tmp_path, "clone", "-q", str(shared), str(home))
            git(home, "remote", "add", "machines", str(shared))
            dvc(home, "remote", "add", "-q", "--local", "-d", "store", f"s3://{BUCKET}/dvc")
            dvc(home, "remote", "modify", "-q", "--local", "store", "endpointurl", store)
            kept = {
                key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DVC", "DYNAMICID"))
            }
            own = {"HOME": str(tmp_path / name), "DYNAMICID_HOME": str(home), "PYTHON": sys.executable}
            shares = {"MLFLOW_TRACKING_URI": server, "DYNAMICID_LOCKS": locks, "DYNAMICID_AIRFLOW_RUN_ID": RUN}
            made.append(Machine(home, {**kept, **own, **shares, "OMP_NUM_THREADS": "1"}))
        yield made


def _die(machine: Machine, script: str, form: dict[str, Any]) -> None:
    """Begin a task and lose the machine while the stage trains."""
    task = machine.start(script, form)
    noted = machine.workspace / ".dynamicid" / "executions" / f"{KILLED}.jsonl"

    def trains() -> bool:
        assert task.poll() is None, task.communicate()[0][-5000:]
        return noted.is_file()

    wait_until(trains, 900, lambda: str(noted), 0.2)
    os.killpg(task.pid, signal.SIGKILL)
    task.communicate()


def test_a_run_goes_on_wherever_its_next_task_is_and_without_a_machine_that_died(
    machines: list[Machine], dag: dict, tmp_path: Path
) -> None:
    scripts = {name: task["script"] for name, task in dag["dags"]["dynamicid_train"]["tasks"].items()}
    form = {**FORM, "anchoring_steps": 40}
    results: dict[str, str] = {}
    for number, name in enumerate(ORDER):
        given: dict[str, Any] = {"form": form}
        if name == "ingest":
            given["plan"] = json.loads(results["plan"])
        if name == KILLED:
            _die(machines[(number + 1) % 2], scripts[name], given)
        results[name] = machines[number % 2].do(scripts[name], given)
    first, second = (machine.workspace for machine in machines)
    assert first.name == second.name
    registered = json.loads(results["register"])
    assert registered["version"] == "1"
    assert objects("dvc/files/md5")

    from mlflow.tracking import MlflowClient

    client = MlflowClient(machines[0].env["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("dynamicid").experiment_id
    finished = [
        one.data.tags.get("dynamicid.stage")
        for one in client.search_runs([experiment], max_results=200)
        if one.info.status == "FINISHED"
    ]
    assert {name: finished.count(name) for name in stage_names()} == dict.fromkeys(stage_names(), 1)
    for machine in machines:
        out = tmp_path / f"restored-{machine.home.parent.name}"
        words = [sys.executable, "-m", "pipelines.cli", "workspace", "restore", RUN, "--out", str(out)]
        run(*words, cwd=machine.home, env=machine.env)
        assert "up to date" in dvc(out, "status")
