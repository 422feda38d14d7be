"""The ingesting DAG where nothing is dropped for as long as the sensor waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_RUN = """
import json, sys
from datetime import timedelta

from airflow.dag_processing.dagbag import DagBag

dag = DagBag(sys.argv[1]).dags["dynamicid_ingest"]
dag.get_task("wait_for_photos").patience = timedelta(seconds=0)
run = dag.test()
states = {task.task_id: str(task.state) for task in run.get_task_instances()}
print("DUMP" + json.dumps({"run": str(run.state), "tasks": states}))
"""


@pytest.mark.nightly
def test_a_wait_without_photos_is_skipped_and_fails_nothing(project: Path, tmp_path: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW", "DVC"))}
    env = {
        **kept,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join([str(project), str(project / "dags")]),
        "DYNAMICID_INBOX": str(tmp_path / "inbox"),
    }
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=env, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(project / "dags")],
        env=env,
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.split("DUMP", 1)[1])
    assert found["run"].endswith("success"), found
    assert {state.rsplit(".", 1)[-1].lower() for state in found["tasks"].values()} == {"skipped"}, found
