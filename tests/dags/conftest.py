"""A clean Airflow home, and runs of DAGs in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_RUN = """
import json, sys
from datetime import timedelta
from airflow.dag_processing.dagbag import DagBag

dag = DagBag(sys.argv[1]).dags[sys.argv[2]]
for task in dag.task_dict.values():
    task.retries = 0
    if hasattr(task, "patience"):
        task.patience = timedelta(seconds=0)
run = dag.test(run_conf=json.loads(sys.argv[3]))
states = {task.task_id: str(task.state).rsplit(".", 1)[-1].lower() for task in run.get_task_instances()}
print("DUMP" + json.dumps({"run": str(run.state).rsplit(".", 1)[-1].lower(), "tasks": states}))
"""


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], dict[str, str]]:
    """Return a function that makes an Airflow home for the DAGs of a checkout and returns its environment."""

    def make(checkout: Path) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW", "DVC"))}
        env = {
            **kept,
            "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
            "AIRFLOW__CORE__DAGS_FOLDER": str(checkout / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=env, check=True, capture_output=True)
        return env

    return make


@pytest.fixture
def run_dag(airflow_home: Callable[[Path], dict[str, str]]) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a DAG of a checkout and returns its state, the states of its tasks, and its log."""

    def run(checkout: Path, dag: str, form: dict[str, Any] | None = None, **env: str) -> dict[str, Any]:
        path = os.pathsep.join([str(checkout), str(checkout / "dags")])
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(checkout / "dags"), dag, json.dumps(form or {})],
            env={**airflow_home(checkout), "PYTHONPATH": path, **env},
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        log, _, states = done.stdout.partition("DUMP")
        return {**json.loads(states), "log": log + done.stderr}

    return run
