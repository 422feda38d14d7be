"""Copy databases that are in use, SQLite by its backup API and PostgreSQL by pg_dump, and load the copies."""

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
# Drops every table first: a newer schema may have tables that are not in the copy and refer to tables that are.
_DROP_TABLES = """
SET LOCAL client_min_messages = warning;
DO $$
DECLARE t record;
BEGIN
  FOR t IN SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
  LOOP
    EXECUTE format('DROP TABLE IF EXISTS %I.%I CASCADE', t.schemaname, t.tablename);
  END LOOP;
END $$
"""


def dump(uri: str, target: Path) -> Path:
    """Copy the database at the SQLAlchemy address `uri` to `target` with the suffix of its kind; return the file.

    The copy is consistent even if the database is written to meanwhile. Raises UserError for another kind of database
    or a missing SQLite file, StageFailed where copying fails.
    """
    address = _parse(uri)
    if address.get_backend_name() == "sqlite":
        return _dump_sqlite(Path(_database(address)), target.with_suffix(".sqlite"))
    file = target.with_suffix(".pgdump")
    _postgres(address, "pg_dump", "--format=custom", "--no-owner", f"--file={file}", _database(address))
    return file


def check_kind(file: Path, uri: str) -> None:
    """Raise UserError where the copy `file` and the database at `uri` are of different kinds."""
    kind = _parse(uri).get_backend_name()
    if file.suffix != _KINDS[kind]:
        raise UserError(
            f"{file.name}: a copy of another kind of database than {kind}; expected a file *{_KINDS[kind]}, or name "
            "the database to restore it into"
        )


def load(file: Path, uri: str) -> None:
    """Replace the database at `uri` by the copy `file`, in one transaction or by one rename.

    Every existing table is dropped, those of a newer schema included. Raises UserError where the copy is of another
    kind of database, StageFailed where loading fails; the database is unchanged then.
    """
    check_kind(file, uri)
    address = _parse(uri)
    if address.get_backend_name() == "sqlite":
        target = Path(_database(address))
        with atomic_file(target) as part:
            shutil.copyfile(file, part)
            for journal in ("-wal", "-shm"):
                Path(f"{target}{journal}").unlink(missing_ok=True)  # they belong to the replaced file
        return
    with tempfile.TemporaryDirectory() as folder:
        # Not piped into psql: a broken pipe would end the script early, and psql would commit the first part.
        script = Path(folder) / "script.sql"
        _postgres(address, "pg_restore", "--clean", "--if-exists", "--no-owner", f"--file={script}", str(file))
        options = ("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--output=/dev/null")
        _postgres(address, "psql", *options, "-c", _DROP_TABLES, "-f", str(script), _database(address))


def is_empty(uri: str) -> bool:
    """Whether the database at `uri` has no tables, or its SQLite file is missing; StageFailed if opening fails."""
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
    """Return the path of an SQLite database or the name of a PostgreSQL database."""
    if not address.database or address.database == ":memory:":
        raise UserError(f"{address.render_as_string()}: the address has no database that can be copied")
    return str(address.database)


def _dump_sqlite(database: Path, file: Path) -> Path:
    if not database.is_file():
        raise UserError(f"{database}: no such database")
    try:
        source = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        with closing(source), closing(sqlite3.connect(file)) as copy:
            source.backup(copy)
            problem = copy.execute("pragma integrity_check").fetchone()[0]
    except sqlite3.Error as error:
        raise StageFailed(f"{database}: it cannot be copied: {error}") from None
    if problem != "ok":
        raise StageFailed(f"{database}: the database is damaged: {problem}")
    return file


def _program(name: str) -> str:
    """Return the path of a PostgreSQL program: of the newest installed server, as older ones refuse newer data."""
    with suppress(UserError):
        newest = find_programs() / name
        if newest.is_file():
            return str(newest)
    on_path = shutil.which(name)
    if on_path is None:
        raise UserError(f"{name} is missing: apt-get install postgresql-client (Debian, Ubuntu)")
    return on_path


def _postgres(address: Any, name: str, *arguments: str) -> None:
    # In the environment, because every user of the machine can read command lines.
    given = {
        "PGHOST": address.host or address.query.get("host"),
        "PGPORT": address.port or address.query.get("port"),
        "PGUSER": address.username,
        "PGPASSWORD": address.password,
    }
    environment = {**os.environ, **{key: str(value) for key, value in given.items() if value}}
    run_program(name, _program(name), *arguments, env=environment)
