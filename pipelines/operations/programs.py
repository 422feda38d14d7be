"""Programs of others: run, with the reason where they fail, and waited for."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pipelines.core.errors import StageFailed

Trouble = TypeVar("Trouble")


def run_program(what: str, *command: str | Path, **more: Any) -> None:
    """Run a program, with the arguments of `subprocess.run`; raise StageFailed with `what` and its error otherwise."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **more)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        errors = [line for line in lines if "error:" in line.lower()] or lines[-1:]
        raise StageFailed(f"{what}: {errors[0] if errors else f'exit {done.returncode}'}")


def wait_while(trouble: Callable[[], Trouble], seconds: float = math.inf, pause: float = 0.2) -> Trouble:
    """Call `trouble` every `pause` seconds until it returns something false; return its last answer.

    That one is true where `seconds` have passed before: what is in the way then.
    """
    from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

    def last(state: RetryCallState) -> Trouble:
        assert state.outcome is not None
        return state.outcome.result()

    repeat = Retrying(
        retry=retry_if_result(bool),
        stop=stop_after_delay(seconds),
        wait=wait_fixed(pause),
        retry_error_callback=last,
    )
    return repeat(trouble)
