"""A task links its run in MLflow, its Data Docs and its report, and Airflow serves those to whoever may see the DAG."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run

_LINKS = """
import json, os, sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1] + "/dags")
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowException
from airflow.serialization.serialized_objects import DagSerialization
import stage_task

bag = DagBag(sys.argv[1] + "/dags")
known = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(bag.dags["dynamicid_train"]))))
links = {task.task_id: {link.name: link.xcom_key for link in task.operator_extra_links} for task in known.tasks}
key = SimpleNamespace(dag_id="dynamicid_train", xcom_push=lambda key, value: pushed.append((key, value)))

def ended(words, code, seconds):
    os.environ["STEP"] = f"{code} {seconds}"
    task = stage_task.command_task("one", words)
    try:
        task.execute({"ti": key})
    except AirflowException:
        pass
    return {link.name: link.get_link(task, ti_key=key) for link in task.operator_extra_links}

pushed = []
answers = {words: ended(words, 1, 0) for words in ("repro validate", "repro evaluate", "repro preprocess")}
assert pushed == [], "Airflow keeps the answers itself"
ended("repro train_imr", 0, 4)
print("DUMP" + json.dumps({"links": links, "answers": answers, "pushed": pushed}))
"""
# In place of the command line: names a run, then succeeds or fails as STEP says.
_COMMAND = """#!/bin/sh
set -- $STEP
echo http://mlflow/#/experiments/1/runs/2 > "$DYNAMICID_RUN_FILE"
printf %s "$RUNS/dynamicid-train-manual-1" > "$DYNAMICID_WORKSPACE_FILE"
sleep "$2"
exit "$1"
"""
_PAGES = """
import json, sys
from airflow.api_fastapi.app import create_app
from starlette.testclient import TestClient
client = TestClient(create_app(apps="all"))
given = {}
for number in range(2):
    for path in sys.argv[1:]:
        answer = client.get("/dynamicid/pages/" + path, follow_redirects=False)
        policy = answer.headers.get("content-security-policy", "")
        given.setdefault(path, []).append([answer.status_code, answer.text, policy])
    token = client.post("/auth/token", json={"username": "admin", "password": "right"}).json()["access_token"]
    client.cookies.set("_token", token)
print("DUMP" + json.dumps(given))
"""
RUN = "dynamicid_train/dynamicid-train-manual-1"


@pytest.fixture
def workspaces(tmp_path: Path) -> Path:
    """Workspaces of two DAGs: one with pages, all beside a file that is no page."""
    for name in ("dynamicid-train-manual-1", "other-manual-1"):
        docs = tmp_path / name / "reports" / "data_docs" / "validate"
        (docs / "static" / "styles").mkdir(parents=True)
        (docs / "index.html").write_text("<p>docs</p>")
        (docs / "static" / "styles" / "own.css").write_text("p {}")
        (tmp_path / name / "reports" / "index.html").write_text("<p>report</p>")
        (tmp_path / name / "secret.html").write_text("<p>secret</p>")
    return tmp_path


def printed(script: str, *arguments: object, cwd: Path, **env: str) -> Any:
    """Run a script in a clean Airflow home, as Airflow reads its settings when it is imported; return what it dumps."""
    home = {"AIRFLOW_HOME": str(cwd / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PATH": os.environ["PATH"]}
    done = run(sys.executable, "-c", script, *arguments, cwd=cwd, env={**home, **env}, without=("AIRFLOW",))
    return json.loads(done.stdout.partition("DUMP")[2])


def test_the_links_survive_serialisation_and_hold_what_the_task_made(project: Path, workspaces: Path) -> None:
    command = workspaces / "python"
    command.write_text(_COMMAND)
    command.chmod(0o755)
    base = "http://airflow:8080/base"
    settings = {"RUNS": str(workspaces), "DYNAMICID_PYTHON": str(command), "AIRFLOW__API__BASE_URL": f"{base}/"}
    found = printed(_LINKS, project, cwd=workspaces, **settings)
    links = {"MLflow run": "_link_RunLink", "Data Docs": "_link_DocsLink", "Report": "_link_ReportLink"}
    assert found["links"]["validate"] == found["links"]["register"] == links
    assert found["links"]["person_asked"] == {}, "no command"
    address = "http://mlflow/#/experiments/1/runs/2"
    pages = f"{base}/dynamicid/pages/{RUN}"
    docs, report = f"{pages}/reports/data_docs/validate/index.html", f"{pages}/reports/index.html"
    assert found["answers"] == {
        "repro validate": {"MLflow run": address, "Data Docs": docs, "Report": ""},
        "repro evaluate": {"MLflow run": address, "Data Docs": "", "Report": report},
        "repro preprocess": {"MLflow run": address, "Data Docs": "", "Report": ""},
    }, "also of tasks that failed"
    assert found["pushed"] == [["_link_RunLink", address]], "while a long command runs"


_CODES = """
import json, sys
sys.path.insert(0, sys.argv[1] + "/dags")
from airflow.sdk.exceptions import AirflowException
from command_operator import CommandOperator
found = []
for code in (1, 2):
    words = f"echo '[{code}, \\"why\\"]' > \\"$DYNAMICID_REASON_FILE\\"; exit {code}"
    try:
        CommandOperator(task_id="one", bash_command=words, append_env=True, pages={}).execute({})
    except AirflowException as error:
        found.append([type(error).__name__, str(error)])
print("DUMP" + json.dumps(found))
"""


def test_bad_input_is_not_tried_again(project: Path, tmp_path: Path) -> None:
    found = printed(_CODES, project, cwd=tmp_path)
    assert found == [["AirflowException", "why (exit 1)"], ["AirflowFailException", "why (exit 2)"]]


def test_pages_are_for_whoever_may_see_the_dag_and_reach_nothing_of_airflow(
    project: Path, workspaces: Path, airflow_home: Callable[[Path], dict[str, str]]
) -> None:
    (workspaces / "passwords.json").write_text('{"admin": "right"}')
    own = {
        **airflow_home(project),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(project / "dags" / "plugins"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(workspaces / "passwords.json"),
        "DYNAMICID_RUNS": str(workspaces),
    }
    static = f"{RUN}/reports/data_docs/validate/static"
    shown = {
        f"{RUN}/reports/index.html": "<p>report</p>",
        f"{RUN}/reports/data_docs/validate/index.html": "<p>docs</p>",
    }
    hidden = [
        f"{RUN}/secret.html",
        f"{RUN}/reports/%2e%2e/secret.html",
        f"{static}/%2e%2e/index.html",
        f"{static}/..%2f..%2f..%2findex.html",
        "dynamicid_train/other-manual-1/reports/index.html",
        "dynamicid_train/../dynamicid-train-manual-1/reports/index.html",
        f"{RUN}/reports",
    ]
    styles = f"{static}/styles/own.css"
    found = printed(_PAGES, *shown, styles, *hidden, cwd=workspaces, **own)
    for path, text in shown.items():
        assert found[path][0][0] in (401, 403), "nobody is logged in"
        assert found[path][1][:2] == [200, text]
        assert "sandbox" in found[path][1][2]
        assert "allow-same-origin" not in found[path][1][2]
    assert [answer[:2] for answer in found[styles]] == [[200, "p {}"]] * 2, "asked for by a page without a login"
    for path in hidden:
        assert not any("<p>" in answer[1] and answer[0] == 200 for answer in found[path]), path
