"""Health of the stack's servers, from the supervisor and from their HTTP health endpoints."""

from __future__ import annotations

import json
import time
from typing import Any

from pipelines.core.errors import StageFailed
from pipelines.operations.programs import wait_while
from pipelines.operations.stack.settings import Stack
from pipelines.operations.stack.supervisor import status

_AIRFLOW_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


def http_request(method: str, url: str, **more: Any) -> tuple[int, bytes]:
    """Send a request with `requests`; return status and body, or status 0 and why where no server answers in time."""
    import requests

    try:
        answer = requests.request(method, url, timeout=10, **more)
    except requests.RequestException as error:
        return 0, _innermost(error).encode()
    return answer.status_code, answer.content


def _innermost(error: BaseException) -> str:
    """Return the reason of the operating system, which clients wrap in errors of their own; else the error's name."""
    reason, at = type(error).__name__, error.__context__
    while at is not None:
        reason = at.strerror if isinstance(at, OSError) and at.strerror else reason
        at = at.__context__
    return reason


def unhealthy(stack: Stack) -> dict[str, str]:
    """Return {part: reason} of every part that is not healthy."""
    problems = {name: state for name, state in status(stack).items() if state != "RUNNING"}
    code, body = http_request("GET", f"{stack.mlflow_url}/health")
    if code != 200:
        problems["mlflow"] = f"HTTP {code}" if code else f"does not answer ({body.decode()})"
    code, body = http_request("GET", f"{stack.airflow_url}/api/v2/monitor/health")
    if code != 200:
        problems["airflow-api-server"] = f"HTTP {code}" if code else f"does not answer ({body.decode()})"
        return problems
    states = {part: (json.loads(body).get(part) or {}).get("status") for part in _AIRFLOW_PARTS}
    return problems | {f"airflow {part}": str(state) for part, state in states.items() if state != "healthy"}


def wait_healthy(stack: Stack, seconds: float) -> float:
    """Wait until every part is healthy; return the seconds it took. Raises StageFailed naming those that are not."""
    begin = time.monotonic()
    if problems := wait_while(lambda: unhealthy(stack), seconds, pause=1):
        listed = ", ".join(f"{name}: {why}" for name, why in problems.items())
        raise StageFailed(f"not healthy after {seconds:.0f} s: {listed}; logs in {stack.state / 'logs'}")
    return time.monotonic() - begin
