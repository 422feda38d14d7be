"""The DAG of housekeeping, whole: what is old goes, in folders and in Airflow's database, and is counted."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.registry.tracking import open_tracking
from tests.processes import run

# As in the processes of Airflow's tasks (airflow.sdk.execution_time.supervisor.block_orm_access).
HIDDEN = "airflow-db-not-allowed:///"
_CLEAN = """
import os, sys
sys.path.insert(0, sys.argv[1] + "/dags")
from airflow.dag_processing.dagbag import DagBag
task = DagBag(sys.argv[1] + "/dags").dags["dynamicid_maintenance"].task_dict["clean_airflow"]
task.env["BEFORE"] = "2026-02-01T00:00:00+00:00"
for name in ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__SQL_ALCHEMY_CONN"):
    os.environ[name] = sys.argv[2]
task.execute({})
"""


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_old_records_of_airflow_go_though_it_hides_its_database(project: Path, airflow_home) -> None:
    env = airflow_home(project)
    database = Path(env["AIRFLOW_HOME"]) / "airflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        for day in ("2026-01-01", "2026-03-01"):
            connection.execute("INSERT INTO log (dttm, event) VALUES (?, 'cli_test')", (f"{day} 00:00:00",))
    command = [sys.executable, "-c", _CLEAN, str(project), HIDDEN]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    with closing(sqlite3.connect(database)) as connection:
        left = connection.execute("SELECT dttm FROM log WHERE event = 'cli_test'").fetchall()
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '_airflow_deleted%'").fetchall()
    assert ([day[:10] for (day,) in left], tables) == (["2026-03-01"], [])


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_night_of_housekeeping(checkout: Path, tmp_path: Path, run_dag, monkeypatch: pytest.MonkeyPatch) -> None:
    own = shutil.copytree(checkout, tmp_path / "dynamicid")
    changes = "s/^  inbox_days:.*/  inbox_days: 0/; s/^  deleted_runs_days:.*/  deleted_runs_days: 0/"
    run("sed", "-i", changes, "params.yaml", cwd=own)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = open_tracking(own)
    deleted = client.create_run(client.experiment_id(), run_name="deleted").info.run_id
    client.log_text(deleted, "x" * 1000, "file.txt")
    client.delete_run(deleted)
    cache, young = (own / ".dynamicid" / "preprocess" / name for name in ("old.arrow", "young.arrow"))
    finished = own / "inbox" / "_done" / "one" / "1.jpg"
    for file in (cache, young, finished):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 500)
    os.utime(cache, (time.time() - 90 * 86400,) * 2)
    places = {"DYNAMICID_INBOX": str(own / "inbox"), "DYNAMICID_BACKUPS": str(tmp_path / "backups")}
    found = run_dag(own, "dynamicid_maintenance", **places)
    (tmp_path / "log").write_text(found["log"])
    done = dict.fromkeys(("backup", "clean", "clean_inbox", "clean_airflow"), "success")
    wrong = [line for line in found["log"].splitlines() if "error" in line.lower() or "exit" in line]
    assert found["tasks"] == {**done, "outcome": "skipped"}, "\n".join(wrong)[-5000:]
    assert (cache.exists(), young.exists(), finished.exists()) == (False, True, False)
    assert "removed 1 item, 500 bytes" in found["log"]
    assert "1 deleted run removed, " in found["log"]
    assert "_done/one: 500 bytes removed" in found["log"]
    (copied,) = (tmp_path / "backups").iterdir()
    assert json.loads((copied / "manifest.json").read_text())["files"]
