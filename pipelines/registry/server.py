"""Wait for an MLflow server or database that is away, and say so; MLflow's client would retry in silence."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipelines.core.errors import StageFailed, UserError
from pipelines.registry.faults import Unavailable, away, reason

WAIT_VARIABLE = "DYNAMICID_MLFLOW_WAIT"
WAIT_SECONDS = 300.0
# Status codes of a proxy whose server does not answer.
_UNAVAILABLE = (502, 503, 504)
# Seconds to connect to a server, and to wait for its word that it is well.
_HEALTH = (5.0, 10.0)
Answer = TypeVar("Answer")


def place_of(uri: str) -> str:
    """Return how messages name MLflow at `uri`: without user name and password, which it may contain."""
    address = urlsplit(uri)
    if address.scheme in ("http", "https"):
        return f"MLflow at {address.scheme}://{address.hostname}" + (f":{address.port}" if address.port else "")
    if address.scheme.startswith("sqlite"):
        from sqlalchemy.engine import make_url

        return f"MLflow's database {make_url(uri).database}"
    if address.hostname is None:
        return f"MLflow at {uri}"
    port = f":{address.port}" if address.port else ""
    return f"MLflow's database {address.scheme}://{address.hostname}{port}{address.path}"


def patiently(uri: str, call: Callable[[], Answer]) -> Answer:
    """Return what `call` returns; while MLflow at `uri` is away, wait and call again.

    Prints the reason for waiting to stderr. Raises StageFailed after DYNAMICID_MLFLOW_WAIT seconds (default 300); any
    other error passes.
    """
    import typer
    from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential

    seconds, place = _seconds(), place_of(uri)

    def report(state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        if state.attempt_number == 1 and error is not None:
            typer.echo(f"{place} does not answer ({away(error)}); waiting for it", err=True)

    retrying = Retrying(
        stop=stop_after_delay(seconds),
        wait=wait_exponential(multiplier=0.5, max=5),
        retry=retry_if_exception(lambda error: away(error) is not None),
        before_sleep=report,
        reraise=True,
    )
    try:
        answer = retrying(call)
    except Exception as error:
        if (why := away(error)) is None:
            raise
        raise StageFailed(
            f"{place}: no answer in {seconds:.0f} s ({why}); results are kept: once the server "
            f"answers, the same command or `dynamicid record` records them. {WAIT_VARIABLE} sets a longer wait"
        ) from None
    if retrying.statistics["attempt_number"] > 1:
        typer.echo(f"{place} answers again", err=True)
    return answer


def wait_for_server(uri: str) -> None:
    """Wait until the server at `uri` gives any answer; return at once for other kinds of tracking URI.

    Raises StageFailed as `patiently` does, and UserError for an invalid address.
    """
    if urlsplit(uri).scheme not in ("http", "https"):
        return
    import requests

    def ask() -> None:
        answer = requests.head(f"{uri.rstrip('/')}/health", timeout=_HEALTH)
        if answer.status_code in _UNAVAILABLE:
            raise Unavailable(answer.status_code)

    try:
        patiently(uri, ask)
    except requests.RequestException as error:
        raise UserError(f"{place_of(uri)}: {reason(error)}; expected the address of an MLflow server") from None


def check_artefacts(uri: str, location: str) -> None:
    """Raise UserError where the server at `uri` takes no files for an experiment whose artefacts are at `location`.

    MLflow's client would wait for a server that was started without artefacts, and write into a folder of this machine
    where the server means one of its own.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    address, place = urlsplit(uri), urlsplit(location)
    if address.scheme not in ("http", "https"):
        return
    kept = "results are kept, and `dynamicid record` records them then"
    if place.scheme == "mlflow-artifacts":
        endpoint, creds = "/api/2.0/mlflow-artifacts/artifacts", get_default_host_creds(uri)
        answer = patiently(
            uri, lambda: http_request(creds, endpoint, "GET", max_retries=0, raise_on_status=False, timeout=_HEALTH[1])
        )
        if answer.status_code == _UNAVAILABLE[1] and "serve-artifacts" in answer.text:
            raise UserError(
                f"{place_of(uri)}: it takes no files, as it runs with --no-serve-artifacts, so nothing is recorded; "
                f"start `mlflow server` without this option and with --artifacts-destination: {kept}"
            )
    folder = Path(url2pathname(place.path)) if place.scheme in ("", "file") else None
    if folder is not None and not _is_here(address.hostname) and not folder.is_dir():
        raise UserError(
            f"{place_of(uri)}: its experiment keeps files in {folder}, a folder of the server's machine that is not "
            f"here, so nothing is recorded; start `mlflow server` with --serve-artifacts and a new database: {kept}"
        )


def _is_here(host: str | None) -> bool:
    """Whether a host is this machine, by its address on the loopback."""
    with suppress(ValueError):
        return ip_address(host or "").is_loopback
    return host == "localhost"


def _seconds() -> float:
    given = os.environ.get(WAIT_VARIABLE) or WAIT_SECONDS
    try:
        return float(given)
    except ValueError:
        raise UserError(f"{WAIT_VARIABLE}={given}: expected a number of seconds") from None
