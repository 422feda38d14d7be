"""Commands wait for a server that does not answer, with a message and a limit."""

from __future__ import annotations

import http.server
import threading
import time
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.registry.server import WAIT_VARIABLE, check_artefacts, wait_for_server
from tests.processes import free_port


@pytest.fixture
def port() -> int:
    return free_port()


class _Refusing(http.server.BaseHTTPRequestHandler):
    """A proxy whose server comes back at the third request, and then requires a password."""

    asked = 0

    def do_HEAD(self) -> None:
        _Refusing.asked += 1
        self.send_error(503 if _Refusing.asked < 3 else 401)

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_comes_back_is_waited_for(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    servers: list[http.server.HTTPServer] = []

    def come_back() -> None:
        time.sleep(1)
        servers.append(http.server.HTTPServer(("127.0.0.1", port), _Refusing))
        servers[0].serve_forever()

    threading.Thread(target=come_back, daemon=True).start()
    wait_for_server(f"http://somebody:secret@127.0.0.1:{port}/")
    servers[0].shutdown()
    servers[0].server_close()
    assert _Refusing.asked == 3
    # Any status counts as an answer. The password must not be logged.
    assert capsys.readouterr().err == (
        f"MLflow at http://127.0.0.1:{port} does not answer (Connection refused); waiting for it\n"
        f"MLflow at http://127.0.0.1:{port} answers again\n"
    )


def test_a_server_that_stays_unreachable_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WAIT_VARIABLE, "1")
    with pytest.raises(StageFailed, match=rf"127.0.0.1:{port}: no answer in 1 s \(Connection refused\); .*kept"):
        wait_for_server(f"http://127.0.0.1:{port}")


def test_an_invalid_address_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"expected the address of an MLflow server"):
        wait_for_server("http://*.nowhere:5000")
    monkeypatch.setenv(WAIT_VARIABLE, "long")
    with pytest.raises(UserError, match=f"{WAIT_VARIABLE}=long: expected a number of seconds"):
        wait_for_server("http://127.0.0.1:5000")


@pytest.mark.parametrize("uri", ["sqlite:////somewhere/mlflow.db", "databricks", "file:///somewhere"])
def test_other_tracking_uris_are_not_asked(uri: str) -> None:
    wait_for_server(uri)


class _WithoutArtefacts(http.server.BaseHTTPRequestHandler):
    """An MLflow server that was started with --no-serve-artifacts."""

    def do_GET(self) -> None:
        text = b"Endpoint: /api disabled due to the mlflow server running with `--no-serve-artifacts`."
        self.send_response(503)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_without_artefacts_is_named_and_not_waited_for(port: int) -> None:
    server = http.server.HTTPServer(("127.0.0.1", port), _WithoutArtefacts)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(
            UserError, match=r"takes no files, as it runs with --no-serve-artifacts.*`dynamicid record`"
        ):
            check_artefacts(f"http://127.0.0.1:{port}", "mlflow-artifacts:/1")
    finally:
        server.shutdown()
        server.server_close()


def test_a_folder_of_another_machine_is_no_place_for_files(tmp_path: Path) -> None:
    """MLflow's client would make it here, where nobody finds it."""
    with pytest.raises(UserError, match=r"mlflow.example:5000: its experiment keeps files in /srv/none/1"):
        check_artefacts("http://mlflow.example:5000", "file:///srv/none/1")
    check_artefacts("http://mlflow.example:5000", tmp_path.as_uri())  # a folder that both share
    check_artefacts("http://localhost:5000", "/srv/none/1")
    check_artefacts("sqlite:///mlflow.db", "/srv/none/1")
