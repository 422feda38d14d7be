"""The tables of MLflow's database: made whole by the first writer, and refused where another MLflow made them.

MLflow makes its tables in some hundred steps, without a lock: two first writers break each other's, a killed one leaves
a half. It also migrates an older database without being asked.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import advisory
from pipelines.registry.server import patiently, place_of
from pipelines.registry.settings import sqlite_uri

LOCK_SECONDS = 600.0


def prepare(uri: str) -> None:
    """Make MLflow's tables in the database `uri` if it is new or was left half made; other kinds of URI stay as is.

    Raises UserError where an older or newer MLflow made them.
    """
    if not uri.startswith(("sqlite", "postgresql", "mysql", "mssql")):
        return
    if patiently(uri, lambda: _is_unfinished(uri)):
        with _first(uri):
            if _is_unfinished(uri):
                _make(uri)
    _check_revision(uri)


def _engine(uri: str) -> Any:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    return create_engine(uri, poolclass=NullPool)


def _file(uri: str) -> Path | None:
    """Return the file of a SQLite database; None for another kind, in memory or an address that SQLite reads itself."""
    from sqlalchemy.engine import make_url

    address = make_url(uri)
    name = address.database or ":memory:"
    plain = address.get_backend_name() == "sqlite" and name != ":memory:" and not name.startswith("file:")
    return Path(name) if plain else None


def _is_unfinished(uri: str) -> bool:
    """Whether nobody has used the database yet: no tables, or none of the experiments that every MLflow begins with."""
    from sqlalchemy import inspect, text

    file = _file(uri)
    if file is not None and not (file.is_file() and file.stat().st_size):
        return True
    with _engine(uri).connect() as connection:
        tables = set(inspect(connection).get_table_names())
        if not tables - {"alembic_version"}:
            return True
        return "experiments" in tables and connection.execute(text("SELECT 1 FROM experiments")).first() is None


@contextmanager
def _first(uri: str) -> Iterator[None]:
    """Hold the lock of the first writer: a file beside SQLite's, which stays; an advisory lock of PostgreSQL."""
    from filelock import FileLock, Timeout

    file = _file(uri)
    taken = StageFailed(f"{file or place_of(uri)}: another process has been making its tables for {LOCK_SECONDS:.0f} s")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{file}.lock", timeout=LOCK_SECONDS):
                yield
        except Timeout:
            raise taken from None
    elif uri.startswith("postgresql"):
        with advisory(uri, "mlflow-tables", LOCK_SECONDS, taken):
            yield
    else:
        yield


def _make(uri: str) -> None:
    """Make tables and first experiment; SQLite's in another file, which gets its name when it is complete."""
    import mlflow.db
    from mlflow.tracking import MlflowClient

    file = _file(uri)
    if file is None:
        mlflow.db.upgrade.callback(uri)
        MlflowClient(uri).search_experiments(max_results=1)  # makes the first experiment
        return
    for left in file.parent.glob(f"{file.name}.*.part*"):
        left.unlink(missing_ok=True)
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}.part")
    new = sqlite_uri(part)
    try:
        mlflow.db.upgrade.callback(new)
        MlflowClient(new).search_experiments(max_results=1)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _check_revision(uri: str) -> None:
    import mlflow
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    with _engine(uri).connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    if present == scripts.get_current_head():
        return
    place, ours = place_of(uri), f"MLflow {mlflow.__version__}"
    if present is None:
        raise UserError(f"{place}: it holds tables, but none of MLflow's; name another database")
    try:
        scripts.get_revision(present)
    except CommandError:
        raise UserError(
            f"{place}: a newer MLflow than {ours} made it (schema {present}); install that MLflow, or restore a backup"
        ) from None
    way = "`dynamicid upgrade` migrates it" if _file(uri) else "back it up, then `mlflow db upgrade` with its address"
    raise UserError(f"{place}: an older MLflow than {ours} made it (schema {present}); {way}")
