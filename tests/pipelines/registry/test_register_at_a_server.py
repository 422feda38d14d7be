"""Registering at an MLflow server, which checks more than a local database, and which may be away meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.processes import dynamicid, free_port, wait_until


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[str]:
    """Yield the address of a real server with its own database."""
    shutil.copy2(empty_database, tmp_path / "server.db")
    # Files go through the server, as they do in an experiment that it made itself.
    with closing(sqlite3.connect(tmp_path / "server.db")) as database, database:
        database.execute("update experiments set artifact_location = 'mlflow-artifacts:/' || experiment_id")
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
        # It would wait for connections that are still open; its helpers are of the same group.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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


class Proxy:
    """A proxy before the server that goes away at a request whose first line holds `word`.

    `how`: it cuts connections, answers 503, or takes requests and hangs. `late`: the server still gets that request,
    only its answer is lost.
    """

    def __init__(self, server: str, word: str, how: str, seconds: float, *, late: bool) -> None:
        self.word, self.how, self.seconds, self.late = word.encode(), how, seconds, late
        self.server = (urlsplit(server).hostname, urlsplit(server).port)
        self.back: float | None = None  # when it comes back; None before it goes
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def away(self) -> bool:
        return self.back is not None and time.monotonic() < self.back

    def _listen(self) -> None:
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.server) as server:
            threading.Thread(target=self._copy_back, args=(server, client), daemon=True).start()
            while data := client.recv(1 << 16):
                if self.back is None and self.word in data.split(b"\r\n", 1)[0]:
                    self.back = time.monotonic() + self.seconds
                    if self.late:
                        server.sendall(data)
                        time.sleep(2)
                if not self.away:
                    server.sendall(data)
                elif self.how == "503":
                    client.sendall(
                        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    )
                    return
                elif self.how == "cuts":
                    return
                else:
                    time.sleep(max(0.0, (self.back or 0) - time.monotonic()))
                    return

    def _copy_back(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(1 << 16):
                if not self.away:
                    client.sendall(data)
        except OSError:
            return


@pytest.mark.nightly
@pytest.mark.parametrize(
    "case",
    [
        ("register", "POST /api/2.0/mlflow/model-versions/create", "cuts", False),
        ("register", "POST /api/2.0/mlflow/model-versions/create", "503", True),
        ("register", "POST /api/2.0/mlflow/runs/create", "cuts", True),
        ("register", "PUT /api/2.0/mlflow-artifacts/artifacts", "hangs", False),
        ("promote", "POST /api/2.0/mlflow/registered-models/alias", "cuts", False),
        ("promote", "POST /api/2.0/mlflow/model-versions/set-tag", "503", True),
    ],
)
def test_a_server_that_is_away_for_a_minute_is_waited_for(
    registered: Any, server: str, tmp_path: Path, case: tuple[str, str, str, bool]
) -> None:
    from mlflow.tracking import MlflowClient

    from pipelines.registry.decisions import decisions_of

    command, word, how, late = case
    root = tmp_path / "checkout"
    shutil.copytree(registered.root, root, symlinks=True)
    without = ("MLFLOW", "DYNAMICID")
    arguments = ["register"]
    if command == "promote":
        dynamicid("register", "--no-promote", cwd=root, env={"MLFLOW_TRACKING_URI": server}, without=without)
        arguments = ["promote", "models:/dynamicid/1", "--by", "Ada"]
    proxy = Proxy(server, word, how, 60, late=late)
    env = {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
    done = dynamicid(*arguments, cwd=root, env=env, without=without)
    assert proxy.back is not None
    assert not proxy.away
    assert "Traceback" not in done.stderr
    assert f"MLflow at {proxy.url} does not answer (" in done.stderr
    assert f"MLflow at {proxy.url} answers again" in done.stderr
    client = MlflowClient(server, registry_uri=server)
    (version,) = client.search_model_versions("name = 'dynamicid'")
    assert set(client.get_model_version("dynamicid", version.version).aliases) == {"challenger", "champion"}
    assert [one.decision for one in decisions_of(version)][-1] == "promoted"
    runs = client.search_runs([client.get_experiment_by_name("dynamicid").experiment_id])
    states = sorted((run.info.run_name, run.info.status) for run in runs)
    assert states == [("chain faces-v2", "FINISHED"), ("evaluate", "FINISHED"), ("register", "FINISHED")]


@pytest.mark.parametrize("how", ["cuts", "503", "hangs"])
def test_a_server_that_stays_away_ends_a_command_in_one_line(tmp_path: Path, how: str) -> None:
    """Also where it takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = Proxy(f"http://127.0.0.1:{silent.getsockname()[1]}", "/", how, 3600, late=False)
        env = {"MLFLOW_TRACKING_URI": proxy.url, "DYNAMICID_MLFLOW_WAIT": "3"}
        command = ("lineage", "models:/dynamicid/1")
        done = dynamicid(*command, cwd=tmp_path, env=env, code=1, without=("MLFLOW", "DYNAMICID"))
    *waiting, last = done.stderr.splitlines()
    assert f"dynamicid: MLflow at {proxy.url}: no answer in 3 s" in last
    assert all("waiting for it" in line for line in waiting)
    assert len(waiting) <= 1
