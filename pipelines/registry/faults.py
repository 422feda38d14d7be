"""What an error of MLflow's client means: its database or server is away for now, or one line that says what is wrong.

MLflow wraps the errors of its database driver and of its HTTP client, so the whole chain of an error is read.
"""

from __future__ import annotations

import errno
import http.client
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from pipelines.core.errors import StageFailed, UserError

# HTTP: too many requests; a server that fails, or a proxy whose server does not answer.
_AWAY = (429, 500, 502, 503, 504)
_TOO_MANY = re.compile(r"too many (\d+) error responses")
# The code in MLflow's errors where a run, a version or an alias does not exist.
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
_NO_SPACE = "no space left on the disk: free some (`dynamicid clean` lists what can go), then run again"
_READ_ONLY = "it cannot be written: make the file and its folder writable, or take the server out of read-only mode"
_DAMAGED = "its database is damaged or none of MLflow's: `dynamicid restore` brings back a backup"
# What a database says in its own words, and what that means.
_REASONS = (
    (r"database or disk is full|no space left on device", _NO_SPACE),
    (r"readonly database|read-only transaction|read-only file system", _READ_ONLY),
    (r"unable to open database file", "the database cannot be opened: does its folder exist, and may you write there?"),
    (r"file is not a database|malformed|no such table|relation .* does not exist", _DAMAGED),
    (r"password authentication failed|role .* does not exist|database .* does not exist", "the database refused login"),
    (r"must be in the 'active' (?:lifecycle_stage|state)", "somebody deleted it meanwhile; run again"),
)


class TrackingFault(StageFailed):
    """MLflow refused a call, or could not carry it out; `code` is its error code."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def missing(self) -> bool:
        """Whether MLflow has no such run, version, alias or model."""
        return self.code in _MISSING


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error` and the errors behind it, the innermost last."""
    while error is not None:
        yield error
        origin = getattr(error, "orig", None)  # of the database driver
        error = origin if isinstance(origin, BaseException) else error.__cause__ or error.__context__


def away(error: BaseException) -> str | None:
    """Return why MLflow's database or server does not answer for now; None where waiting would not help."""
    import requests

    links = list(chain(error))
    if any(isinstance(one, requests.exceptions.SSLError) for one in links):
        return None
    if any(isinstance(one, requests.ConnectionError | requests.Timeout) for one in links):
        return reason(error)
    for one in links:
        if isinstance(one, Unavailable) or (isinstance(one, requests.exceptions.RetryError) and _status(one)):
            return f"HTTP {_status(one)}"
    return _database_away(links)


def fault_of(error: Exception, place: str) -> Exception:
    """Return the error to raise in place of `error`: one line about MLflow at `place`, or `error` itself."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    links = list(chain(error))
    if isinstance(error, UserError | StageFailed):
        return error
    for one in links:
        if isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            return one
    if not isinstance(error, MlflowException | SQLAlchemyError | sqlite3.Error):
        return error
    code = str(getattr(error, "error_code", "INTERNAL_ERROR"))
    text = " ".join(str(links[-1]).split())
    for pattern, meaning in _REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            return TrackingFault(f"{place}: {meaning} ({text[:200]})", code)
    first = (str(getattr(error, "message", "")) or str(error)).strip().splitlines() or [type(error).__name__]
    return TrackingFault(f"{place}: {first[0][:300]}", code)


def reason(error: BaseException | None) -> str:
    """Return the reason of the innermost error; the outer ones only add the client's text."""
    why = ""
    for one in chain(error):
        if isinstance(one, OSError) and one.strerror:
            why = one.strerror
        elif isinstance(one, TimeoutError):
            why = "timed out"
        elif isinstance(one, http.client.RemoteDisconnected):
            why = "it closed the connection"
    return why or type(error).__name__


class Unavailable(Exception):
    """A server, or a proxy before it, answered that it is unavailable; `status` is the HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


def _status(error: BaseException) -> int | None:
    if isinstance(error, Unavailable):
        return error.status
    match = _TOO_MANY.search(str(error))
    return int(match[1]) if match else None


def _database_away(links: list[BaseException]) -> str | None:
    """Return why a database does not answer: a lock of SQLite, or what PostgreSQL calls a lost connection."""
    for one in links:
        kind: Any = type(one)
        text = (str(one).strip().splitlines() or [""])[0]
        if kind.__module__ == "sqlite3" and "locked" in text:
            return text
        if kind.__module__.startswith("psycopg") and kind.__name__ != "OperationalError":
            # Subclasses are named after PostgreSQL's states: administrator's shutdown, deadlock …
            return text if str(getattr(one, "pgcode", "") or "")[:2] in ("08", "57", "40") else None
        if kind.__module__.startswith("psycopg"):
            refused = re.search(r"authentication failed|does not exist|no pg_hba", str(one))
            return None if refused else text
    return None
