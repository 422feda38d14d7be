"""A run ends with its true state, however its process ends; what a killed one left is marked by the next."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.registry.faults import TrackingFault
from pipelines.registry.registry import open_registry
from pipelines.registry.runs import fail_abandoned, finished_run, leave_address, open_run
from tests.processes import PROJECT, wait_until

_WRITER = """
import sys, time
from pathlib import Path
from pipelines.registry.faults import TrackingFault
from pipelines.registry.registry import open_registry
from pipelines.registry.runs import open_run
with open_run(open_registry(Path(sys.argv[1])), "long", {}) as run_id:
    print(run_id, flush=True)
    time.sleep(600)
"""


def writer(root: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a process that writes a run; return it and the run's id."""
    command = [sys.executable, "-c", _WRITER, str(root)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_process_that_is_asked_to_end_leaves_a_killed_run_and_one_line(mlflow_checkout: Path) -> None:
    process, run_id = writer(mlflow_checkout)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert error.splitlines()[-1] == f"ended by a signal: MLflow run {run_id} counts as killed; run again"
    assert "Traceback" not in error
    client = open_registry(mlflow_checkout)
    assert client.get_run(run_id).info.status == "KILLED"
    assert list((mlflow_checkout / ".dynamicid" / "writing").iterdir()) == []


def test_what_a_killed_process_left_is_failed_and_what_a_living_one_writes_is_not(mlflow_checkout: Path) -> None:
    (killed, cut_off), (living, running) = writer(mlflow_checkout), writer(mlflow_checkout)
    try:
        killed.kill()
        killed.wait(60)
        client = open_registry(mlflow_checkout)
        assert client.get_run(cut_off).info.status == "RUNNING"
        fail_abandoned(client)
        assert client.get_run(cut_off).info.status == "FAILED"
        assert client.get_run(running).info.status == "RUNNING"
    finally:
        living.terminate()
        living.communicate(timeout=60)
    wait_until(lambda: client.get_run(running).info.status == "KILLED", 10, "not marked")
    assert list((mlflow_checkout / ".dynamicid" / "writing").iterdir()) == []


def test_a_run_that_fails_is_failed_and_one_that_a_person_deletes_meanwhile_is_named(mlflow_checkout: Path) -> None:
    client = open_registry(mlflow_checkout)
    with pytest.raises(ValueError, match="mine"), open_run(client, "one", {}) as run_id:
        raise ValueError("mine")
    assert client.get_run(run_id).info.status == "FAILED"

    def write() -> None:
        nonlocal run_id
        with open_run(client, "two", {}) as run_id:
            client.delete_run(run_id)
            client.set_tag(run_id, "a", "b")

    with pytest.raises(TrackingFault, match="somebody deleted it meanwhile"):
        write()
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"


@pytest.mark.parametrize("value", ["it's", "a \"b\" 'c'", "x' OR '1'='1", "back\\slash", "'"])
def test_runs_are_found_by_tags_with_quotes(mlflow_checkout: Path, value: str) -> None:
    """A model's name or a folder may have quotes, which MLflow's filters cannot hold."""
    client = open_registry(mlflow_checkout)
    with open_run(client, "one", {"dynamicid.model": "plain"}):
        pass
    with open_run(client, "two", {"dynamicid.model": value}) as run_id:
        pass
    assert finished_run(client, model=value) == run_id
    assert finished_run(client, model=value, stage="none") is None


def test_the_address_of_a_run_is_left_for_the_caller_without_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, experiment = tmp_path / "address", SimpleNamespace(info=SimpleNamespace(experiment_id="7"))

    def left(server: str, pages: str = "") -> str | None:
        file.unlink(missing_ok=True)
        monkeypatch.setenv("DYNAMICID_MLFLOW_PAGES", pages)
        leave_address(SimpleNamespace(tracking_uri=server, get_run=lambda run_id: experiment), "f00")
        return file.read_text() if file.is_file() else None

    run = "#/experiments/7/runs/f00?workflowType=machine_learning"  # else MLflow opens its mode for GenAI
    assert left("http://127.0.0.1:5000") is None, "nobody asked"
    monkeypatch.setenv("DYNAMICID_RUN_FILE", str(file))
    assert left("http://127.0.0.1:5000") == f"http://127.0.0.1:5000/{run}"
    assert left("https://me:secret@there/mlflow/") == f"https://there/mlflow/{run}"
    assert left("http://mlflow:5000", "http://127.0.0.1:5000") == f"http://127.0.0.1:5000/{run}"
    assert left("sqlite:////checkout/mlflow.db") is None, "no server, no page"
    monkeypatch.setenv("DYNAMICID_RUN_FILE", str(tmp_path / "gone" / "address"))
    assert left("http://127.0.0.1:5000") is None, "a link is worth no failure"
