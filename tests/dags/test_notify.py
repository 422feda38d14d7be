"""A task that failed for good is reported once, by what is configured only, and no address is logged."""

from __future__ import annotations

import json
import runpy
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.processes import run


@pytest.fixture
def notify(project: Path) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(project / "dags" / "notify.py")))


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict]]]:
    received: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if "refused" in self.path else 204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()


CONTEXT = {
    "ti": SimpleNamespace(dag_id="dynamicid_train", task_id="train_imr", try_number=2, log_url="http://there/log"),
    "run_id": "by-hand",
    "exception": RuntimeError("the loss diverged"),
}


def test_a_failure_is_posted_once_a_webhook_is_configured(
    notify: SimpleNamespace, webhook: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, received = webhook
    monkeypatch.delenv(notify.VARIABLE, raising=False)
    notify.report_failure(CONTEXT)
    assert received == [], "nothing is sent by default"
    monkeypatch.setenv(notify.VARIABLE, address)
    notify.report_failure(CONTEXT)
    assert len(received) == 1
    assert received[0]["text"] == "dynamicid_train.train_imr failed in by-hand: the loss diverged"
    assert received[0]["attempt"] == 2
    assert received[0]["log"] == "http://there/log"


def test_an_unreachable_webhook_is_only_logged(
    notify: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(notify.VARIABLE, "http://127.0.0.1:9/closed")
    notify.report_failure(CONTEXT)
    assert "could not be reported by DYNAMICID_WEBHOOK: ConnectionError" in caplog.text


_FAILING = """
import os, sys
sys.path.insert(0, sys.argv[1] + "/dags")
from datetime import timedelta
from airflow.sdk import DAG, task
from stage_task import COMMON

arguments = {**COMMON["default_args"], "retries": 1, "retry_delay": timedelta(0), "retry_exponential_backoff": False}
with DAG("short", schedule=None, catchup=False, default_args=arguments) as dag:
    @task
    def fails():
        raise RuntimeError("the loss diverged")

    @task
    def mended(ti):
        if ti.try_number == 1:
            raise RuntimeError("the server was away")

    @task
    def after():
        return

    mended() >> fails() >> after()

if __name__ == "__main__":
    run = dag.test()
    print("STATES", {one.task_id: (str(one.state), one.try_number) for one in run.get_task_instances()})
"""


def test_one_message_for_a_task_that_failed_for_good_and_none_for_one_that_is_retried(
    project: Path, tmp_path: Path, webhook: tuple, airflow_home: Callable[[Path], dict[str, str]]
) -> None:
    address, received = webhook
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "short.py").write_text(_FAILING)
    chat = {"path": address.replace("http:", "json:").replace("/hook", "/secret-of-a-chat"), "tag": "team"}
    refused = {"path": address.replace("http:", "json:").replace("/hook", "/refused-secret")}
    connection = {"conn_type": "apprise", "extra": {"config": [refused, chat]}}
    env = {
        **airflow_home(tmp_path),
        "AIRFLOW_CONN_DYNAMICID_NOTIFY": json.dumps(connection),
        "DYNAMICID_WEBHOOK": f"{address}/secret-of-a-webhook",
    }
    done = run(sys.executable, tmp_path / "dags" / "short.py", project, env=env)
    assert "'mended': ('success', 2)" in done.stdout
    assert "'fails': ('failed', 2)" in done.stdout
    to_refused, to_chat, to_webhook = sorted(received, key=len)
    assert to_chat["title"] == "short.fails failed"
    assert to_chat["message"].startswith("short.fails failed in manual__")
    assert "the loss diverged\nhttp" in to_chat["message"], "the reason, and the address of the log"
    assert to_refused == to_chat, "a service that is away keeps no other from its message"
    assert to_webhook.keys() == {"text", "dag", "task", "run", "attempt", "log"}
    assert (to_webhook["task"], to_webhook["attempt"]) == ("fails", 2)
    printed = done.stdout + done.stderr
    assert "could not be reported by the connection dynamicid_notify: RuntimeError" in printed
    assert not any(text in printed for text in ("secret-of", "refused-secret"))


def test_the_reason_of_a_command_is_that_of_its_task(project: Path, tmp_path: Path) -> None:
    """In a process of its own: Airflow reads its settings when it is imported."""
    code = """
import sys
sys.path.insert(0, sys.argv[1] + "/dags")
from airflow.sdk.exceptions import AirflowException
from stage_task import command_task
for words in ("configure --profile none --params x.yaml", "--no-such-option"):
    try:
        command_task("configure", words, at_home=True).execute({})
    except AirflowException as error:
        print(error)
"""
    env = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "false"}
    done = run(sys.executable, "-c", code, project, env=env)
    lines = [line for line in done.stdout.splitlines() if "(exit 2)" in line or "non-zero exit code" in line]
    assert lines[0].startswith("profile 'none': no file none.yaml in ")
    assert lines[1:] == ["Bash command failed. The command returned a non-zero exit code 2."]
