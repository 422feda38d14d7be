"""Whether the servers of the stack are up: asked of themselves, over HTTP."""

from __future__ import annotations

import json
import time
from typing import Any

from pipelines.core.errors import StageFailed
from pipelines.operations.programs import wait_while
from pipelines.operations.stack.settings import Stack
from pipelines.operations.stack.supervisor import status

_AIRFLOW_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


def ask(method: str, url: str, **more: Any) -> tuple[int, bytes]:
    """Send a request of `requests`; return status and body, status 0 where nobody answers in ten seconds."""
    import requests

    try:
        answer = requests.request(method, url, timeout=10, **more)
    except requests.RequestException:
        return 0, b""
    return answer.status_code, answer.content


def unhealthy(stack: Stack) -> dict[str, str]:
    """Return what is not healthy, and why; empty when everything is."""
    problems = {name: state for name, state in status(stack).items() if state != "RUNNING"}
    code, body = ask("GET", f"{stack.mlflow_url}/health")
    if code != 200:
        problems["mlflow"] = f"HTTP {code}" if code else "does not answer"
    code, body = ask("GET", f"{stack.airflow_url}/api/v2/monitor/health")
    if code != 200:
        problems["airflow-api-server"] = f"HTTP {code}" if code else "does not answer"
    else:
        answer = json.loads(body)
        for part in _AIRFLOW_PARTS:
            told = (answer.get(part) or {}).get("status")
            if told != "healthy":
                problems[f"airflow {part}"] = str(told)
    return problems


def wait_healthy(stack: Stack, seconds: float) -> float:
    """Wait until every part is healthy; return the seconds it took, raise StageFailed naming what is not."""
    begin = time.monotonic()
    if problems := wait_while(lambda: unhealthy(stack), seconds, pause=1):
        told = ", ".join(f"{name}: {why}" for name, why in problems.items())
        raise StageFailed(f"not healthy after {seconds:.0f} s: {told}; logs in {stack.state / 'logs'}")
    return time.monotonic() - begin
