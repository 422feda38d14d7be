"""Two runs of dynamicid_train in parallel, in one clean Airflow home; one of them is restored."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.core.chain import stage_names
from pipelines.registry.decisions import decisions_of
from tests.processes import SMALL_CHAIN, dvc, dynamicid, git, wait_until

# Small enough for a test: eight people, few steps.
FORM = {"identities": 8, "anchoring_steps": 4, "imr_steps": 4, "promote": False, "overrides": list(SMALL_CHAIN)}
RUNS = {"2026-01-01T00:00:00+00:00": 0, "2026-01-02T00:00:00+00:00": 1}


@pytest.fixture(scope="module")
def runs(
    checkout: Path, airflow_home: Callable[[Path], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkout with two parallel runs of the DAG, with different training seeds, in one clean Airflow home."""
    checkout = shutil.copytree(checkout, tmp_path_factory.mktemp("runs") / "dynamicid")
    env = airflow_home(checkout)
    started = {}
    for date, seed in RUNS.items():
        form = {**FORM, "overrides": [*FORM["overrides"], f"train_anchoring.seed={seed}"]}
        log = Path(env["AIRFLOW_HOME"]) / f"run-{seed}.log"
        command = [sys.executable, "-m", "airflow", "dags", "test", "dynamicid_train", date, "-c", json.dumps(form)]
        with log.open("w") as stream:
            run = started[log] = subprocess.Popen(command, env=env, stdout=stream, stderr=subprocess.STDOUT)

        def begun(log: Path = log, run: subprocess.Popen[bytes] = run) -> bool:
            return "task_id=workspace" in log.read_text() or run.poll() is not None

        # Airflow fails if two processes write a DAG into an empty database within the same second.
        wait_until(begun, 300, log.read_text, pause=0.5)
    for log, run in started.items():
        assert run.wait(timeout=1500) == 0, log.read_text()[-6000:]
        assert "state=failed" not in log.read_text()
    return checkout


def _client(checkout: Path):
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{checkout / 'mlflow.db'}")


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_two_parallel_runs_both_record_every_stage(runs: Path) -> None:
    client = _client(runs)
    experiment = client.get_experiment_by_name("dynamicid").experiment_id
    recorded = client.search_runs([experiment], max_results=200)
    of_stage = {
        name: [run for run in recorded if run.data.tags.get("dynamicid.stage") == name] for name in stage_names()
    }
    for name, stage_runs in of_stage.items():
        assert stage_runs, name
        for run in stage_runs:
            assert run.info.status == "FINISHED"
            assert run.data.tags["dynamicid.git_commit"]
            assert run.data.tags["dynamicid.dataset_version"].startswith("faces-v")
            assert run.data.tags["dynamicid.airflow_run_id"].startswith("dynamicid_train/")
    assert {run.data.params["train_anchoring.seed"] for run in of_stage["train_anchoring"]} == {"0", "1"}
    assert all("id_similarity" in run.data.metrics for run in of_stage["evaluate"])


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
    saved = git(runs, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    names = sorted({ref.rsplit("/", 1)[1] for ref in saved if "dynamicid-train" in ref})
    assert len(names) == len(RUNS)
    target = tmp_path / "restored"
    dynamicid("workspace", "restore", names[0], "--out", target, cwd=runs)
    printed = dvc(target, "repro")
    assert "Running stage" not in printed
    assert "up to date" in printed
    assert "up to date" in dvc(target, "status")
