"""Whether the servers of the stack are up: asked of themselves, over HTTP."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

from pipelines.core.errors import StageFailed
from pipelines.operations.stack.settings import Stack
from pipelines.operations.stack.supervisor import status

_AIRFLOW_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


def fetch(
    url: str, *, data: Any = None, headers: dict[str, str] | None = None, seconds: float = 10
) -> tuple[int, bytes]:
    """Send a request (POST of JSON where there is `data`); return status and body, status 0 where nobody answers."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def unhealthy(stack: Stack) -> dict[str, str]:
    """Return what is not healthy, and why; empty when everything is."""
    problems = {name: state for name, state in status(stack).items() if state != "RUNNING"}
    code, body = fetch(f"{stack.mlflow_url}/health")
    if code != 200:
        problems["mlflow"] = f"HTTP {code}" if code else "does not answer"
    code, body = fetch(f"{stack.airflow_url}/api/v2/monitor/health")
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
    while problems := unhealthy(stack):
        if time.monotonic() - begin > seconds:
            told = ", ".join(f"{name}: {why}" for name, why in problems.items())
            raise StageFailed(f"not healthy after {seconds:.0f} s: {told}; logs in {stack.state / 'logs'}")
        time.sleep(1)
    return time.monotonic() - begin
