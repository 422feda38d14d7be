"""Copies of databases while they are in use: SQLite by its own backup interface, PostgreSQL by pg_dump."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_file
from pipelines.operations.programs import run_program
from pipelines.operations.stack.postgres import find_programs

_KINDS = {"sqlite": ".sqlite", "postgresql": ".pgdump"}
# A newer schema may have tables that the copy does not know, and that refer to those it replaces.
_EMPTY = """
SET LOCAL client_min_messages = warning;
DO $$
DECLARE found record;
BEGIN
  FOR found IN SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
  LOOP
    EXECUTE format('DROP TABLE IF EXISTS %I.%I CASCADE', found.schemaname, found.tablename);
  END LOOP;
END $$
"""


def dump(uri: str, target: Path) -> Path:
    """Copy the database at the SQLAlchemy address `uri` beside `target`, with the suffix of its kind; return the file.

    The copy is consistent though others write meanwhile. Raises UserError for a database of another kind or one that
    is not there, StageFailed where the copy fails.
    """
    address = _parse(uri)
    if address.get_backend_name() == "sqlite":
        return _dump_sqlite(Path(_database(address)), target.with_suffix(".sqlite"))
    file = target.with_suffix(".pgdump")
    _postgres(address, "pg_dump", "--format=custom", "--no-owner", f"--file={file}", _database(address))
    return file


def check_kind(file: Path, uri: str) -> None:
    """Raise UserError where the copy `file` is of another kind of database than the one at `uri`."""
    kind = _parse(uri).get_backend_name()
    if file.suffix != _KINDS[kind]:
        raise UserError(
            f"{file.name}: a copy of another kind of database than {kind}; expected a file *{_KINDS[kind]}, or name "
            "the database that it shall go to"
        )


def load(file: Path, uri: str) -> None:
    """Put the copy `file` in the place of the database at `uri`: in one transaction, or by one rename.

    Every table that was there goes, those of a newer schema too. Raises UserError where the copy is of another kind of
    database, StageFailed where it cannot be put there; the database is as it was then.
    """
    check_kind(file, uri)
    address = _parse(uri)
    if address.get_backend_name() == "sqlite":
        place = Path(_database(address))
        with atomic_file(place) as part:
            shutil.copyfile(file, part)
            for journal in ("-wal", "-shm"):
                Path(f"{place}{journal}").unlink(missing_ok=True)  # they belong to the file that is replaced
        return
    with tempfile.TemporaryDirectory() as folder:
        # Written out whole first: a pipe that breaks would be the end of the text, and half of it be committed.
        script = Path(folder) / "script.sql"
        _postgres(address, "pg_restore", "--clean", "--if-exists", "--no-owner", f"--file={script}", str(file))
        options = ("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--output=/dev/null")
        _postgres(address, "psql", *options, "-c", _EMPTY, "-f", str(script), _database(address))


def is_empty(uri: str) -> bool:
    """Whether there is no SQLite database at `uri`, or one without a table; StageFailed where nobody answers."""
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import OperationalError

    address = _parse(uri)
    if address.get_backend_name() == "sqlite" and not Path(_database(address)).is_file():
        return True
    engine = create_engine(address)
    try:
        return not inspect(engine).get_table_names()
    except OperationalError as error:
        why = str(error.orig).strip().splitlines()[0]
        raise StageFailed(f"{address.render_as_string()}: it cannot be opened: {why}") from None
    finally:
        engine.dispose()


def _parse(uri: str) -> Any:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        address = make_url(uri)
    except ArgumentError:
        raise UserError("database address: expected sqlite:///FILE or postgresql://USER@HOST/NAME") from None
    if address.get_backend_name() not in ("sqlite", "postgresql"):
        raise UserError(f"{address.render_as_string()}: only SQLite and PostgreSQL databases can be copied")
    return address


def _database(address: Any) -> str:
    """Return the path of an SQLite database, or the name of one of PostgreSQL."""
    if not address.database or address.database == ":memory:":
        raise UserError(f"{address.render_as_string()}: it names no database that can be copied")
    return str(address.database)


def _dump_sqlite(place: Path, file: Path) -> Path:
    if not place.is_file():
        raise UserError(f"{place}: no such database")
    try:
        with (
            closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(file)) as out,
        ):
            source.backup(out)
            problem = out.execute("pragma integrity_check").fetchone()[0]
    except sqlite3.Error as error:
        raise StageFailed(f"{place}: it cannot be copied: {error}") from None
    if problem != "ok":
        raise StageFailed(f"{place}: the database is damaged: {problem}")
    return file


def _program(name: str) -> str:
    """Return the path of a program of PostgreSQL: the newest server's own, since an older one refuses its databases."""
    with suppress(UserError):
        own = find_programs() / name
        if own.is_file():
            return str(own)
    found = shutil.which(name)
    if found is None:
        raise UserError(f"{name} is missing: apt-get install postgresql-client (Debian, Ubuntu)")
    return found


def _postgres(address: Any, name: str, *arguments: str) -> None:
    program = _program(name)
    # By the environment: a password on the command line is visible to everybody on the machine.
    given = {
        "PGHOST": address.host or address.query.get("host"),
        "PGPORT": address.port or address.query.get("port"),
        "PGUSER": address.username,
        "PGPASSWORD": address.password,
    }
    environment = {**os.environ, **{key: str(value) for key, value in given.items() if value}}
    run_program(name, program, *arguments, env=environment)
