"""Run external programs, and wait for a condition."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pipelines.core.environment import clean_environment
from pipelines.core.errors import StageFailed

T = TypeVar("T")


def run_program(what: str, *command: str | Path, **more: Any) -> None:
    """Run `command`, with `more` for `subprocess.run`; raise StageFailed with `what` and its error if it fails."""
    more = {"env": clean_environment(), "errors": "replace", **more}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **more)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        errors = [line for line in lines if "error:" in line.lower()] or lines[-1:]
        raise StageFailed(f"{what}: {errors[0] if errors else f'exit {done.returncode}'}")


def wait_while(condition: Callable[[], T], seconds: float = math.inf, pause: float = 0.2) -> T:
    """Call `condition` every `pause` seconds until it is false or `seconds` have passed; return its last value."""
    from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

    def last(state: RetryCallState) -> T:
        assert state.outcome is not None
        return state.outcome.result()

    repeat = Retrying(
        retry=retry_if_result(bool), stop=stop_after_delay(seconds), wait=wait_fixed(pause), retry_error_callback=last
    )
    return repeat(condition)
