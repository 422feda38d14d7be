"""Registering at an MLflow server, which checks more than a local database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import dynamicid, free_port, wait_until


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[str]:
    """Yield the address of a real server with its own database."""
    shutil.copy2(empty_database, tmp_path / "server.db")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--artifacts-destination", (tmp_path / "artifacts").as_uri()]
    # uvicorn is found by name: the environment of this Python comes first.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    process = subprocess.Popen(command, env={**os.environ, "PATH": path}, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(f"{url}/health", process), 120, f"{url}: no answer", 0.5)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"the server ended with {process.returncode}"
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.nightly
def test_a_version_is_registered_judged_and_has_its_files(registered: Any, server: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    root = tmp_path / "checkout"
    shutil.copytree(registered.root, root, symlinks=True)
    at_server = {"MLFLOW_TRACKING_URI": server}
    done = dynamicid("register", "--accept-refusal", cwd=root, env=at_server, without=("MLFLOW", "DYNAMICID"))
    printed = json.loads(done.stdout.splitlines()[-1])
    assert (printed["decision"], printed["version"]) == ("promoted", "1")
    client = MlflowClient(server, registry_uri=server)
    version = client.get_model_version("dynamicid", "1")
    assert "champion" in version.aliases
    model = version.source.removeprefix("models:/")
    kept_there = {file.path for file in client.list_logged_model_artifacts(model, "artifacts/adapter")}
    assert kept_there == {"artifacts/adapter/config.json"}
