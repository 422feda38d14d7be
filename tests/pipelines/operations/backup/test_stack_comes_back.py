"""A running stack with all servers is backed up, deleted, restored into another folder, and works again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import requests

from pipelines.operations.stack.credentials import read_env
from pipelines.operations.stack.settings import Stack
from tests.e2e.airflow_api import Airflow
from tests.pipelines.operations.backup.conftest import Place
from tests.pipelines.operations.backup.stack_contents import ACCOUNT, PASSWORD

DAG = "dynamicid_train"


def start(place: Place, stack: Stack) -> None:
    ports = [f"--{name}-port={port}" for name, port in vars(stack.ports).items()]
    place.cli(stack, "stack", "start", *ports, "--timeout=600")


def logged_in(stack: Stack) -> Airflow:
    airflow = Airflow(stack.airflow_url, read_env(stack.state / "credentials.env")["AIRFLOW_ADMIN_PASSWORD"])
    airflow.wait_for_dag(DAG)
    return airflow


def answer(stack: Stack, password: str) -> int:
    """Return the HTTP status that MLflow's server answers to the account with `password`."""
    url = f"{stack.mlflow_url}/api/2.0/mlflow/registered-models/get?name=dynamicid"
    response = requests.get(url, auth=(ACCOUNT, password), timeout=60)
    assert not response.ok or response.json()["registered_model"]["name"] == "dynamicid"
    return response.status_code


@pytest.mark.stack
@pytest.mark.timeout(1200)
def test_every_server_has_its_data_again(place: Place, tmp_path: Path) -> None:
    stack, copy = place.stack("lost"), tmp_path / "copy"
    start(place, stack)
    logged_in(stack).trigger(DAG, "waiting", {})  # the DAG is paused, so the run stays queued
    place.contents(stack, "fill", stack.mlflow_url)
    place.cli(stack, "backup", "--out", str(copy))
    assert "this stack runs" in place.cli(stack, "restore", str(copy), "--force", code=2)
    passwords = (stack.state / "credentials.env").read_bytes()
    place.cli(stack, "stack", "stop")
    shutil.rmtree(stack.state)

    again = place.stack("again")
    place.cli(again, "restore", str(copy))
    assert (again.state / "credentials.env").read_bytes() == passwords
    start(place, again)
    place.contents(again, "read", again.mlflow_url)
    assert (answer(again, PASSWORD), answer(again, f"not {PASSWORD}")) == (200, 401)
    runs = {run["dag_run_id"]: run["state"] for run in logged_in(again).runs(DAG)}
    assert runs == {"waiting": "queued", "by-hand": "success"}
