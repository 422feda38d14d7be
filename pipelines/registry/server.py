"""Wait for an unreachable MLflow server and report it; MLflow's client would retry for minutes in silence."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from pipelines.core.errors import StageFailed, UserError

WAIT_VARIABLE = "DYNAMICID_MLFLOW_WAIT"
WAIT_SECONDS = 300.0
# Status codes of a proxy whose server does not answer.
_UNAVAILABLE = (502, 503, 504)


def wait_for_server(uri: str) -> None:
    """Wait until the server at `uri` gives any answer; return at once for other kinds of tracking URI.

    Prints the reason for waiting to stderr. Raises StageFailed after DYNAMICID_MLFLOW_WAIT seconds (default 300), and
    UserError for an invalid address.
    """
    address = urlsplit(uri)
    if address.scheme not in ("http", "https"):
        return
    import requests
    import typer
    from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential

    # Without user name and password, which the URI may contain.
    name = f"{address.scheme}://{address.hostname}" + (f":{address.port}" if address.port else "")
    seconds = _seconds()

    def away(error: BaseException) -> bool:
        return isinstance(error, _Gateway | requests.ConnectionError | requests.Timeout) and not isinstance(
            error, requests.exceptions.SSLError
        )

    def report(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            reason = _why(state.outcome.exception())
            typer.echo(f"MLflow at {name} does not answer ({reason}); waiting for it", err=True)

    try:
        for attempt in Retrying(
            stop=stop_after_delay(seconds),
            wait=wait_exponential(multiplier=0.5, max=5),
            retry=retry_if_exception(away),
            before_sleep=report,
            reraise=True,
        ):
            with attempt:
                answer = requests.head(f"{uri.rstrip('/')}/health", timeout=30)
                if answer.status_code in _UNAVAILABLE:
                    raise _Gateway(f"HTTP {answer.status_code}")
        if attempt.retry_state.attempt_number > 1:
            typer.echo(f"MLflow at {name} answers again", err=True)
    except (_Gateway, requests.RequestException) as error:
        if not away(error):
            raise UserError(f"MLflow at {name}: {_why(error)}; expected the address of an MLflow server") from None
        raise StageFailed(
            f"MLflow at {name}: no answer in {seconds:.0f} s ({_why(error)}); results are kept: once the server "
            f"answers, the same command or `dynamicid record` records them. {WAIT_VARIABLE} sets a longer wait"
        ) from None


class _Gateway(Exception):
    """A proxy answered that the server behind it is unavailable."""


def _seconds() -> float:
    given = os.environ.get(WAIT_VARIABLE) or WAIT_SECONDS
    try:
        return float(given)
    except ValueError:
        raise UserError(f"{WAIT_VARIABLE}={given}: expected a number of seconds") from None


def _why(error: BaseException | None) -> str:
    """Return the reason of the innermost exception; the outer ones only add the client's text."""
    reason = str(error) if isinstance(error, _Gateway) else type(error).__name__
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        error = error.__context__
    return reason
