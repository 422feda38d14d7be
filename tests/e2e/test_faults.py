"""Killing servers and tasks during a run loses only time."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.processes import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(7200)]
RUN = "faults"
STEPS = 40


def _kill(number: int) -> None:
    """Kill a service and its child processes without a shutdown."""
    service = psutil.Process(number)
    for process in [service, *service.children(recursive=True)]:
        process.kill()


def _wait_for_refused_write(team, run: str, task: str, seconds: float = 900) -> None:
    """Wait until a write of the task was refused, in any attempt."""

    def refused() -> bool:
        logs = (team.airflow.log("dynamicid_train", run, task, attempt) for attempt in (1, 2, 3))
        return any("does not answer (Connection refused)" in log for log in logs)

    wait_until(refused, seconds, f"{task}: no write was refused while MLflow was away", 2)


def _training(folder: Path) -> psutil.Process | None:
    """Return the process that trains in `folder`, the innermost one."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = process.info["cmdline"] or []
        if "train-anchoring" in command and process.info["cwd"] == str(folder) and "pipelines.cli" in command:
            return process
    return None


@pytest.fixture(scope="module")
def survived(team) -> dict:
    """One run with three faults: PostgreSQL killed, MLflow killed and away for a minute, the training killed."""
    from pipelines.operations.stack.health import wait_healthy

    record: dict = {}
    run = f"{RUN}-{time.time_ns()}"
    conf = {
        "identities": 8,
        "anchoring_steps": STEPS,
        "imr_steps": 3,
        "promote": False,
        "overrides": ["train_anchoring.checkpoint_every=4"],
    }
    team.airflow.trigger("dynamicid_train", run, conf)
    record["run"], dag = run, "dynamicid_train"
    folder = team.workspace(dag, run)

    team.airflow.wait_for_task(dag, run, "preprocess", {"running"}, 1200)
    before = team.airflow.tasks(dag, run)
    record["finished_before"] = {
        name: (task["try_number"], task["end_date"]) for name, task in before.items() if task["state"] == "success"
    }
    postmaster = team.pids()["postgres"]
    os.kill(postmaster, signal.SIGKILL)
    time.sleep(5)
    record["healthy_after"] = wait_healthy(team.stack, 300)
    assert team.pids()["postgres"] != postmaster
    team.airflow.log_in()

    team.airflow.wait_for_task(dag, run, "train_anchoring", {"running"}, 1200)
    # `progress.json` is the last file of a checkpoint: without it there is nothing to resume from.
    resume = folder / ".dynamicid" / "resume"
    wait_until(lambda: list(resume.rglob("step-*/progress.json")), 900, "no checkpoint was written")
    _kill(team.pids()["mlflow"])
    team.cli("stack", "service", "stop", "mlflow")  # otherwise the supervisor restarts it within a second
    stopped = time.monotonic()
    training = _training(folder)
    assert training is not None, "the training ended before it could be killed"
    training.kill()
    # The retry trains without MLflow for at least a minute, and until a write was refused.
    _wait_for_refused_write(team, run, "train_anchoring")
    time.sleep(max(0.0, 60 - (time.monotonic() - stopped)))
    record["mlflow_away"] = time.monotonic() - stopped
    team.cli("stack", "service", "start", "mlflow")

    record["state"] = team.airflow.wait(dag, run, 1800)
    record["tasks"] = team.airflow.tasks(dag, run)
    record["folder"] = folder
    return record


def test_the_run_succeeds(survived: dict) -> None:
    assert survived["state"] == "success"


def test_postgresql_killed_loses_no_finished_task(survived: dict) -> None:
    after = {
        name: (survived["tasks"][name]["try_number"], survived["tasks"][name]["end_date"])
        for name in survived["finished_before"]
    }
    assert {"plan", "workspace", "ingest", "validate"} <= set(after)
    lost = {name for name in after if after[name] != survived["finished_before"][name]}
    print(f"PostgreSQL killed: healthy after {survived['healthy_after']:.0f} s; finished tasks lost: {len(lost)}")
    assert lost == set()


def test_mlflow_away_for_a_minute_loses_no_metric(team, survived: dict) -> None:
    client = team.client()
    experiment = client.get_experiment_by_name("dynamicid").experiment_id
    lost = 0
    for stage in ("train_anchoring", "train_imr"):
        runs = client.search_runs([experiment], f"tags.`dynamicid.stage` = '{stage}'", max_results=100)
        run = next(
            run
            for run in runs
            if run.info.status == "FINISHED" and any(survived["run"] in v for v in run.data.tags.values())
        )
        with (survived["folder"] / "reports" / stage / "losses.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for name in rows[0].keys() - {"step"}:
            written = {int(row["step"]): float(row[name]) for row in rows if row[name] not in ("", "nan")}
            kept = {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}
            lost += sum(kept.get(step) != pytest.approx(value) for step, value in written.items())
            assert set(kept) <= set(written)
    print(f"MLflow killed, away for {survived['mlflow_away']:.0f} s, writes refused: metric values lost: {lost}")
    assert survived["mlflow_away"] >= 60
    assert lost == 0


def test_a_killed_training_resumes_from_its_checkpoint(team, survived: dict) -> None:
    # The third attempt if recording stopped waiting before MLflow was back.
    assert survived["tasks"]["train_anchoring"]["try_number"] in (2, 3)
    log = team.airflow.log("dynamicid_train", survived["run"], "train_anchoring", 2)
    resumed = [step for step in range(1, STEPS + 1) if f"resumed at step {step} of {STEPS}" in log]
    print(f"training killed: resumed at step {resumed} of {STEPS}; steps lost: fewer than 4 (one checkpoint interval)")
    assert len(resumed) == 1
    assert resumed[0] % 4 == 0
