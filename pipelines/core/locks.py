"""Locks between processes: held alone, or together with others, on one machine or on all that share PostgreSQL.

Every command that works in the workspace of a run holds its lock together with others, so that nobody removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from pipelines.core.errors import StageFailed, UserError

LOCKS_VARIABLE = "DYNAMICID_LOCKS"
# A machine that has died is noticed after a minute, and its locks are free.
_ALIVE = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
_CONNECT = 10  # seconds
# PostgreSQL's code of a lock that was not free within `lock_timeout`.
_NOT_FREE = "55P03"
# In the workspace of a run: the mark of one that is whole, and the lock of whoever works in it.
WORKSPACE, IN_USE = ".dynamicid/workspace.json", ".dynamicid/workspace.lock"
# Seconds within which whoever holds a lock for a moment has let it go.
_MOMENT, _POLL = 5.0, 0.02


@contextmanager
def hold(lock: Path, taken: Exception) -> Iterator[None]:
    """Hold the file `lock` during the block; raise `taken` where another process holds it. Creates its folder."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(lock).acquire(timeout=0)
    except Timeout:
        raise taken from None
    with held:
        yield


@contextmanager
def share(lock: Path, taken: Exception, alone: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the file `lock` together with others who share it; raise `taken` where a process holds it alone.

    `alone` is called first by a process that finds nobody else there. `hold` and `is_held` see who shares a lock.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+b") as file:
        if alone is not None and _lock(file, fcntl.LOCK_EX):
            alone()
        until = time.monotonic() + _MOMENT
        while not _lock(file, fcntl.LOCK_SH):
            if time.monotonic() > until:
                raise taken
            time.sleep(_POLL)
        yield


@contextmanager
def hold_with_children(lock: Path, waiting: Callable[[], object]) -> Iterator[int]:
    """Hold the file `lock` alone during the block; `waiting` is called once where another process holds it.

    Yields a descriptor: a child process that is given it (`pass_fds`) holds the lock, too, until it ends. So whoever
    comes after a killed process waits for the work that its children still do.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+b") as file:
        if not _lock(file, fcntl.LOCK_EX):
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextmanager
def staying(folder: Path) -> Iterator[None]:
    """Keep others from removing `folder` during the block, where it is the workspace of a run and can be written to.

    Raises StageFailed while it is being removed.
    """
    with ExitStack() as stack:
        if (folder / WORKSPACE).is_file():
            removed = StageFailed(f"{folder.resolve()}: `dynamicid clean` is removing this workspace")
            with suppress(PermissionError):
                stack.enter_context(share(folder / IN_USE, removed))
        yield


def _lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(lock: Path) -> bool:
    """Return whether a process holds the file `lock`; the file is not created."""
    if not lock.is_file():
        return False
    try:
        with FileLock(lock).acquire(timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def hold_everywhere(lock: Path, seconds: float, taken: Exception) -> Iterator[None]:
    """Hold a lock that is one for all machines during the block; raise `taken` where it is not free within `seconds`.

    It is an advisory lock in the PostgreSQL database of DYNAMICID_LOCKS, with the name of the file `lock`. Without that
    variable it is the file itself, for the processes of one machine.
    """
    if address := os.environ.get(LOCKS_VARIABLE):
        with advisory(address, lock.name, seconds, taken):
            yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(lock).acquire(timeout=seconds)
    except Timeout:
        raise taken from None
    with held:
        yield


@contextmanager
def advisory(address: str, name: str, seconds: float, taken: Exception) -> Iterator[None]:
    """Hold PostgreSQL's advisory lock `name` in the database `address` (as SQLAlchemy has it) during the block.

    Raises `taken` where it is not free within `seconds`, UserError for an address that is none of PostgreSQL,
    StageFailed where the server does not answer. The lock ends with its connection: where that is lost during the
    block, another process may have held the lock meanwhile, and the block ends with StageFailed.
    """
    with _connected(address) as (connection, text, place):
        from sqlalchemy.exc import DBAPIError

        key = {"key": int.from_bytes(hashlib.sha256(f"dynamicid/{name}".encode()).digest()[:8], "big", signed=True)}
        connection.execute(text("SELECT set_config('lock_timeout', :wait, false)"), {"wait": f"{seconds:.3f}s"})
        try:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        except DBAPIError as error:
            codes = (getattr(error.orig, name, None) for name in ("pgcode", "sqlstate"))  # psycopg2, psycopg
            if _NOT_FREE in codes:
                raise taken from None
            raise StageFailed(f"{place}: the lock {name}: {_first_line(error)}; run again") from None
        yield
        try:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
        except DBAPIError:
            raise StageFailed(f"{place}: the lock {name} was lost, as its connection ended; run again") from None


@contextmanager
def _connected(address: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield a connection to PostgreSQL, SQLAlchemy's `text`, and how messages name the place: without its password."""
    try:
        from sqlalchemy import create_engine, text
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError, DBAPIError
        from sqlalchemy.pool import NullPool

        url = make_url(address)
        place = url.render_as_string()
        if url.get_backend_name() != "postgresql":
            raise ArgumentError
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg2")
        options = {"options": _ALIVE, "connect_timeout": _CONNECT}
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=options)
    except ArgumentError:  # not the text of the error, which holds the address and so the password
        raise UserError(f"{LOCKS_VARIABLE}: expected postgresql://USER:PASSWORD@HOST/DATABASE") from None
    except ImportError as error:
        raise UserError(f"{LOCKS_VARIABLE}: {error.name} is missing; `pip install 'dynamicid[stack]'`") from None
    try:
        connection = engine.connect()
    except DBAPIError as error:
        raise StageFailed(f"{place}: {_first_line(error)}; run again when it answers") from None
    with connection:
        yield connection, text, place


def _first_line(error: Any) -> str:
    return str(error.orig).strip().splitlines()[0]
