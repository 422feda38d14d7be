"""A server that is away is waited for, aloud and not for ever."""

from __future__ import annotations

import http.server
import threading
import time

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.registry.server import WAIT_VARIABLE, wait_for_server
from tests.processes import free_port


@pytest.fixture
def port() -> int:
    return free_port()


class _Refusing(http.server.BaseHTTPRequestHandler):
    """A proxy whose server comes back at the third request, and then wants a password."""

    asked = 0

    def do_HEAD(self) -> None:
        _Refusing.asked += 1
        self.send_error(503 if _Refusing.asked < 3 else 401)

    def log_message(self, *_: object) -> None:
        pass


def test_what_comes_back_is_waited_for(port: int, capsys: pytest.CaptureFixture[str]) -> None:
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
    # Any answer is one: who may read it is the client's affair. The password is not for a log.
    assert capsys.readouterr().err == (
        f"MLflow at http://127.0.0.1:{port} is away (Connection refused); waiting for it\n"
        f"MLflow at http://127.0.0.1:{port} is there again\n"
    )


def test_what_stays_away_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WAIT_VARIABLE, "1")
    with pytest.raises(StageFailed, match=rf"127.0.0.1:{port}: no answer in 1 s \(Connection refused\); .*kept"):
        wait_for_server(f"http://127.0.0.1:{port}")


def test_what_can_never_be_there_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"expected the address of an MLflow server"):
        wait_for_server("http://*.nowhere:5000")
    monkeypatch.setenv(WAIT_VARIABLE, "long")
    with pytest.raises(UserError, match=f"{WAIT_VARIABLE}=long: expected a number of seconds"):
        wait_for_server("http://127.0.0.1:5000")


@pytest.mark.parametrize("uri", ["sqlite:////somewhere/mlflow.db", "databricks", "file:///somewhere"])
def test_other_ledgers_are_not_asked(uri: str) -> None:
    wait_for_server(uri)
