"""A real scheduler runs the DAGs, with a script in place of the command line: backfill, cleared tasks, mapped tasks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.airflow_api import Airflow
from tests.processes import free_port, wait_until

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]
TRAIN = "dynamicid_train"
# Two Sundays, on which the DAG would have started.
BACKFILL = {"from_date": "2026-03-01T00:00:00Z", "to_date": "2026-03-09T00:00:00Z", "max_active_runs": 1}

# Notes the run, the number of a mapped task and the words; the plan is the document that it got.
_COMMAND = """#!/bin/sh
shift 2
place=home
case "$*" in "workspace run"*) place="$DYNAMICID_AIRFLOW_RUN_ID"; until test "$1" = --; do shift; done; shift ;; esac
echo "$DYNAMICID_AIRFLOW_RUN_ID|$place|$PART|$*" >> "$NOTES/commands"
case "$*" in
  "retrain plan"*) echo "$DYNAMICID_FORM" ;;
  register*) echo '{}' ;;
  "repro evaluate"|"repro part") echo "http://mlflow/$PART" > "$DYNAMICID_RUN_FILE"; test ! -e "$NOTES/broken$PART" ;;
esac
"""
_MAPPED = """
from datetime import timedelta
from command_operator import CommandOperator
from airflow.sdk import DAG
from stage_task import COMMON, HOME, PYTHON

with DAG("mapped", schedule=None, **COMMON) as dag:
    CommandOperator.partial(
        task_id="part",
        pages={},
        bash_command='exec "$PYTHON" -m pipelines.cli repro part',
        cwd=HOME,
        append_env=True,
        retries=3,
        retry_delay=timedelta(seconds=5),
        retry_exponential_backoff=False,
    ).expand(env=[{"PYTHON": PYTHON, "PART": part} for part in ("0", "1", "2")])
"""


@dataclass(frozen=True)
class Stand:
    """A running Airflow, and the folder with what its commands noted; a file `broken<part>` there makes them fail."""

    api: Airflow
    notes: Path

    def commands(self, run: str) -> list[tuple[str, str, str]]:
        """Return folder, part and words of every command of a run, in order."""
        lines = [line.split("|") for line in (self.notes / "commands").read_text().splitlines()]
        return [(folder, part, words) for of, folder, part, words in lines if of.endswith(f"/{run}") or not of]


@pytest.fixture(scope="module")
def stand(
    project: Path, tmp_path_factory: pytest.TempPathFactory, airflow_home: Callable[[Path], dict[str, str]]
) -> Iterator[Stand]:
    """An Airflow with a scheduler, and of the checkout only what its image has (docker/airflow.Dockerfile)."""
    root = tmp_path_factory.mktemp("stand")
    checkout, notes = root / "checkout", root / "notes"
    notes.mkdir()
    for name in ("dags", "profiles"):
        shutil.copytree(project / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(project / "dvc.yaml", checkout)
    (checkout / "dags" / "mapped.py").write_text(_MAPPED)
    (root / "python").write_text(_COMMAND)
    (root / "python").chmod(0o755)
    (root / "passwords.json").write_text('{"admin": "right"}')
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        **airflow_home(checkout),
        "PYTHONPATH": str(checkout / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(root / "passwords.json"),
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__API_AUTH__JWT_SECRET": "of this test alone, and long enough" * 2,
        "AIRFLOW__API__SECRET_KEY": "of this test",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "DYNAMICID_HOME": str(checkout),
        "DYNAMICID_PYTHON": str(root / "python"),
        "DYNAMICID_RETRY_SECONDS": "1",
        "NOTES": str(notes),
    }
    pools = [sys.executable, "-m", "airflow", "pools", "import", str(project / "docker" / "pools.json")]
    subprocess.run(pools, env=env, check=True, capture_output=True)
    started = []
    try:
        for words in (["api-server", "--port", str(port)], ["dag-processor"], ["scheduler"]):
            with (root / f"{words[0]}.log").open("w") as log:
                command = [sys.executable, "-m", "airflow", *words]
                started.append(
                    subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=root, start_new_session=True)
                )

        def answers() -> Airflow | None:
            try:
                return Airflow(url, "right")
            except OSError:
                return None

        api = wait_until(answers, 600, lambda: (root / "api-server.log").read_text()[-3000:], 2)
        for dag in (TRAIN, "mapped"):
            api.wait_for_dag(dag, 600)
            api.unpause(dag)
        yield Stand(api, notes)
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def test_a_backfill_runs_as_the_schedule_would_have(stand: Stand) -> None:
    stand.api.call("POST", "backfills", dag_id=TRAIN, run_backwards=False, dag_run_conf={}, **BACKFILL)

    def runs() -> list[dict[str, Any]]:
        found = [run for run in stand.api.runs(TRAIN) if run["run_type"] == "backfill"]
        return found if len(found) == 2 and all(run["state"] in ("success", "failed") for run in found) else []

    ended = wait_until(runs, 900, lambda: str(stand.api.runs(TRAIN)), 2)
    assert [run["state"] for run in ended] == ["success"] * 2
    assert sorted(run["logical_date"][:10] for run in ended) == ["2026-03-01", "2026-03-08"]
    for run in ended:
        plan = stand.api.result(TRAIN, run["dag_run_id"], "plan")
        assert plan["trigger"] == "schedule", "not a form with procedural people, which nobody filled in"
    folders = {folder for run in ended for folder, _, words in stand.commands(run["dag_run_id"]) if "repro" in words}
    assert len(folders) == 2, "a workspace each"
    with pytest.raises(AssertionError, match="dynamicid_ingest has a non-periodic schedule"):
        stand.api.call("POST", "backfills", dag_id="dynamicid_ingest", run_backwards=False, dag_run_conf={}, **BACKFILL)


def test_a_cleared_task_goes_on_in_its_workspace_and_repeats_nothing_before_it(stand: Stand) -> None:
    (stand.notes / "broken").touch()
    stand.api.trigger(TRAIN, "cleared", {})
    assert stand.api.wait(TRAIN, "cleared", 900) == "failed"
    before = stand.commands("cleared")
    assert [words for _, _, words in before].count("repro evaluate") == 3, "two retries"
    (stand.notes / "broken").unlink()
    stand.api.call(
        "POST",
        f"dags/{TRAIN}/clearTaskInstances",
        dag_run_id="cleared",
        task_ids=["evaluate"],
        include_downstream=True,
        only_failed=False,
        dry_run=False,
    )
    assert stand.api.wait(TRAIN, "cleared", 900) == "success"
    after = stand.commands("cleared")[len(before) :]
    assert [words for _, _, words in after] == ["repro evaluate", "workspace save", "register --accept-refusal"]
    assert after[0][0] == next(folder for folder, _, words in before if words == "repro evaluate")
    links = stand.api.call("GET", f"dags/{TRAIN}/dagRuns/cleared/taskInstances/evaluate/links")["extra_links"]
    assert links["MLflow run"] == "http://mlflow/"


def test_of_a_mapped_task_only_the_part_that_failed_is_retried(stand: Stand) -> None:
    (stand.notes / "broken1").touch()
    stand.api.trigger("mapped", "mapped", {})

    def failed_once() -> bool:
        return any(part == "1" for _, part, words in stand.commands("mapped") if words == "repro part")

    wait_until(failed_once, 600, lambda: str(stand.api.runs("mapped")), 0.2)
    (stand.notes / "broken1").unlink()
    assert stand.api.wait("mapped", "mapped", 600) == "success"
    parts = [part for _, part, words in stand.commands("mapped") if words == "repro part"]
    assert (parts.count("0"), parts.count("2")) == (1, 1)
    assert 2 <= parts.count("1") <= 4
    shown = [
        stand.api.call("GET", f"dags/mapped/dagRuns/mapped/taskInstances/part/links?map_index={index}")["extra_links"]
        for index in range(3)
    ]
    assert [links["MLflow run"] for links in shown] == [f"http://mlflow/{part}" for part in range(3)]
