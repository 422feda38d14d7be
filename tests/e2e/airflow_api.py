"""A client of Airflow's REST API: log in, trigger, wait, read logs."""

from __future__ import annotations

import json
from typing import Any

import requests

from tests.processes import wait_until

ENDED = {"success", "failed"}
# A task in one of these states stays in it.
LOST = {"failed", "upstream_failed", "skipped", "removed"}


class Airflow:
    """A client that logs in as the administrator."""

    def __init__(self, url: str, password: str) -> None:
        self.url = url
        self._password = password
        self._session = requests.Session()
        self.log_in()

    def log_in(self) -> None:
        account = {"username": "admin", "password": self._password}
        token = requests.post(f"{self.url}/auth/token", json=account, timeout=60)
        token.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"

    def call(self, method: str, path: str, **body: Any) -> Any:
        answer = self._session.request(method, f"{self.url}/api/v2/{path}", timeout=60, json=body or None)
        if not answer.ok:
            raise AssertionError(f"{method} {path}: HTTP {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    def unpause(self, dag: str, *, paused: bool = False) -> None:
        self.call("PATCH", f"dags/{dag}", is_paused=paused)

    def wait_for_dag(self, dag: str, seconds: float = 300) -> None:
        def known() -> bool:
            return dag in {known["dag_id"] for known in self.call("GET", "dags")["dags"]}

        wait_until(known, seconds, f"{dag}: not parsed", 2)

    def trigger(self, dag: str, run: str, conf: dict[str, Any]) -> None:
        self.call("POST", f"dags/{dag}/dagRuns", dag_run_id=run, logical_date=None, conf=conf)

    def runs(self, dag: str) -> list[dict[str, Any]]:
        return self.call("GET", f"dags/{dag}/dagRuns?order_by=run_after&limit=100")["dag_runs"]

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        found = self.call("GET", f"dags/{dag}/dagRuns/{run}/taskInstances?limit=100")["task_instances"]
        return {task["task_id"]: task for task in found}

    def states(self, dag: str, run: str) -> dict[str, str | None]:
        return {name: task["state"] for name, task in self.tasks(dag, run).items()}

    def wait(self, dag: str, run: str, seconds: float) -> str:
        """Wait for the end of a run, also while the server is away, and return its state."""

        def ended() -> str | None:
            try:
                state = self.call("GET", f"dags/{dag}/dagRuns/{run}")["state"]
            except (requests.RequestException, AssertionError):
                return None
            return state if state in ENDED else None

        return wait_until(ended, seconds, lambda: f"{dag} {run}: {self.states(dag, run)}", 2) or ""

    def wait_for_task(self, dag: str, run: str, task: str, states: set[str], seconds: float) -> str:
        def reached() -> str | None:
            found = self.states(dag, run).get(task)
            assert found not in LOST - states, f"{task}: {found}; {self.states(dag, run)}"
            return found if found in states else None

        return wait_until(reached, seconds, lambda: f"{task}: not in {states}; {self.states(dag, run)}", 1) or ""

    def result(self, dag: str, run: str, task: str) -> Any:
        """Return the return value of a task (XCom)."""
        value = self.call("GET", f"dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value")["value"]
        return json.loads(value) if isinstance(value, str) else value

    def log(self, dag: str, run: str, task: str, attempt: int = 1) -> str:
        answer = self._session.get(
            f"{self.url}/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{attempt}",
            headers={"Accept": "application/x-ndjson"},
            timeout=60,
        )
        return answer.text
