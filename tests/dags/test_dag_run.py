"""The DAG really runs: from a clean Airflow home, twice at once, and what it recorded can be restored."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.core.chain import stage_names
from pipelines.registry.decisions import decisions_of
from tests import processes

# Small enough for a test: eight people, a few steps; a third of the people are held out.
FORM = {
    "identities": 8,
    "anchoring_steps": 4,
    "imr_steps": 4,
    "promote": False,
    "overrides": list(processes.SMALL_CHAIN),
}
RUNS = {"2026-01-01T00:00:00+00:00": 0, "2026-01-02T00:00:00+00:00": 1}


def _wait_for(log: Path, text: str, process: subprocess.Popen[bytes], seconds: int = 300) -> None:
    deadline = time.monotonic() + seconds
    while text not in log.read_text() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)


@pytest.fixture(scope="module")
def runs(
    checkout: Path, airflow_home: Callable[[Path], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two runs of the DAG at once, with different training seeds, each from the same clean Airflow home."""
    checkout = shutil.copytree(checkout, tmp_path_factory.mktemp("runs") / "dynamicid")
    env = airflow_home(checkout)
    home = Path(env["AIRFLOW_HOME"])
    processes = {}
    for date, seed in RUNS.items():
        form = {**FORM, "overrides": [*FORM["overrides"], f"train_anchoring.seed={seed}"]}
        log = (home / f"run-{seed}.log").open("w")
        processes[date] = subprocess.Popen(
            [sys.executable, "-m", "airflow", "dags", "test", "dynamicid_train", date, "-c", json.dumps(form)],
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        # Airflow itself stumbles where two processes enter a DAG into an empty database in the same second.
        _wait_for(home / f"run-{seed}.log", "task_id=workspace", processes[date])
    codes = {date: process.wait(timeout=1500) for date, process in processes.items()}
    for date, seed in RUNS.items():
        assert codes[date] == 0, (home / f"run-{seed}.log").read_text()[-6000:]
        assert "state=failed" not in (home / f"run-{seed}.log").read_text()
    return checkout


def _client(checkout: Path):
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{checkout / 'mlflow.db'}")


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_two_runs_at_once_both_record_every_stage(runs: Path) -> None:
    client = _client(runs)
    experiment = client.get_experiment_by_name("dynamicid").experiment_id
    recorded = client.search_runs([experiment], max_results=200)
    for name in stage_names():
        found = [run for run in recorded if run.data.tags.get("dynamicid.stage") == name]
        assert found, name
        for run in found:
            assert run.info.status == "FINISHED"
            assert run.data.tags["dynamicid.git_commit"]
            assert run.data.tags["dynamicid.dataset_version"].startswith("faces-v")
            assert run.data.tags["dynamicid.airflow_run_id"].startswith("dynamicid_train/")
    trained = [run for run in recorded if run.data.tags.get("dynamicid.stage") == "train_anchoring"]
    assert {run.data.params["train_anchoring.seed"] for run in trained} == {"0", "1"}
    evaluated = [run for run in recorded if run.data.tags.get("dynamicid.stage") == "evaluate"]
    assert all("id_similarity" in run.data.metrics for run in evaluated)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_both_adapters_are_registered_and_none_is_promoted(runs: Path) -> None:
    client = _client(runs)
    versions = client.search_model_versions("name = 'dynamicid'")
    assert len(versions) == len(RUNS)
    assert {decision.decision for version in versions for decision in decisions_of(version)} == {"not_asked"}
    assert "challenger" in client.get_registered_model("dynamicid").aliases
    assert "champion" not in client.get_registered_model("dynamicid").aliases


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_recorded_run_is_restored_with_nothing_left_to_do(runs: Path, tmp_path: Path) -> None:
    env = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}

    def call(*command: str, cwd: Path = runs) -> str:
        return processes.run(*command, cwd=cwd, env=env).stdout

    saved = call("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    names = sorted({ref.rsplit("/", 1)[1] for ref in saved if "dynamicid-train" in ref})
    assert len(names) == len(RUNS)
    target = tmp_path / "restored"
    call(sys.executable, "-m", "pipelines.cli", "workspace", "restore", names[0], "--out", str(target))
    done = call(sys.executable, "-m", "dvc", "repro", cwd=target)
    assert "Running stage" not in done
    assert "up to date" in done
    assert "up to date" in call(sys.executable, "-m", "dvc", "status", cwd=target)
