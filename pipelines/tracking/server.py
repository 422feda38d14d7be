"""Waiting for an MLflow server that is away, aloud: MLflow's own client repeats for minutes without a word."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from pipelines.errors import StageFailed

WAIT_VARIABLE = "DYNAMICID_MLFLOW_WAIT"
WAIT_SECONDS = 300.0


def wait_until_there(uri: str) -> None:
    """Wait until the server at `uri` answers anything at all; other kinds of ledger are not asked.

    Says on stderr that and why it waits. Raises StageFailed after DYNAMICID_MLFLOW_WAIT seconds (default 300).
    """
    address = urlsplit(uri)
    if address.scheme not in ("http", "https"):
        return
    import requests
    import typer
    from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

    # Without name and password, which an address may hold.
    name = f"{address.scheme}://{address.hostname}" + (f":{address.port}" if address.port else "")
    seconds = float(os.environ.get(WAIT_VARIABLE) or WAIT_SECONDS)

    def say(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            typer.echo(f"MLflow at {name} is away ({_why(state.outcome.exception())}); waiting for it", err=True)

    try:
        for attempt in Retrying(
            stop=stop_after_delay(seconds),
            wait=wait_exponential(multiplier=0.5, max=5),
            retry=retry_if_exception_type((requests.ConnectionError, requests.Timeout)),
            before_sleep=say,
            reraise=True,
        ):
            with attempt:
                requests.head(f"{uri.rstrip('/')}/health", timeout=30)
        if attempt.retry_state.attempt_number > 1:
            typer.echo(f"MLflow at {name} is there again", err=True)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise StageFailed(
            f"MLflow at {name}: no answer in {seconds:.0f} s ({_why(error)}); what was computed is kept: once the "
            f"server is there, the same command or `dynamicid record` writes it down. {WAIT_VARIABLE} waits longer"
        ) from None


def _why(error: BaseException | None) -> str:
    """Return the innermost reason: the outer ones are the client's words around it."""
    reason = type(error).__name__
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        error = error.__context__
    return reason
