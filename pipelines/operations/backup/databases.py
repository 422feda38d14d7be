"""Copy databases that are in use, SQLite by its backup API and PostgreSQL by pg_dump, and load the copies.

A copy is opened and its rows are counted, table by table, before it counts as one; so is a database after loading.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.core.environment import clean_environment
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_file, sha256
from pipelines.core.words import counted
from pipelines.operations.programs import run_program
from pipelines.operations.stack.postgres import find_programs
from pipelines.registry.relocation import folders_elsewhere, readdress

Moved = tuple[Path, Path] | None
"""The folder of artefacts that a copy of MLflow's database names, and the one that it shall name."""
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
# Settings of libpq that would lead to another server than the address names.
_ELSEWHERE = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGPASSWORD", "PGSERVICE", "PGSERVICEFILE", "PGOPTIONS")
_COPY = re.compile(r'COPY (?P<schema>"(?:[^"]|"")+"|\w+)\.(?P<table>"(?:[^"]|"")+"|\w+) ')


def dump(uri: str, target: Path) -> dict[str, int]:
    """Copy the database at the SQLAlchemy address `uri` to `target` with the suffix of its kind; return rows by table.

    The copy is consistent even if the database is written to meanwhile. Raises UserError for another kind of database,
    a missing SQLite file or a database without tables, StageFailed where copying fails or the copy is not complete.
    """
    address = _parse(uri)
    sqlite = address.get_backend_name() == "sqlite"
    original, copied = (_dump_sqlite if sqlite else _dump_postgres)(address, target)
    if not original:
        raise UserError(f"{address.render_as_string()}: this database has no tables, so there is nothing to copy")
    _check_same(original, copied, f"{address.render_as_string()}: its copy")
    return copied


def _check_same(expected: dict[str, int], found: dict[str, int], what: str) -> None:
    """Raise StageFailed naming the first table that is missing or has another number of rows."""
    for table, rows in expected.items():
        if found.get(table) != rows:
            has = counted(found[table], "row") if table in found else "no such table"
            raise StageFailed(f"{what} is not complete: table {table}: {has}, expected {counted(rows, 'row')}")


def check_kind(file: Path, uri: str) -> None:
    """Raise UserError where the copy `file` and the database at `uri` are of different kinds."""
    kind = _parse(uri).get_backend_name()
    if file.suffix != _KINDS[kind]:
        raise UserError(
            f"{file.name}: a copy of another kind of database than {kind}; expected a file *{_KINDS[kind]}, or name "
            "the database to restore it into"
        )


def load(
    file: Path, uri: str, rows: dict[str, int] | None = None, moved: Moved = None, own: Sequence[Path] | None = None
) -> None:
    """Replace the database at `uri` by the copy `file`, in one transaction or by one rename; it must have `rows` then.

    Every existing table is dropped, those of a newer schema included. With `moved`, it names MLflow's artefacts in the
    second folder in place of the first. Raises UserError where the copy is of another kind of database, StageFailed
    where loading fails (the database is unchanged then), rows are missing, or a PostgreSQL database names artefacts in
    folders of this machine outside of `own` (it is emptied then; of SQLite, `restore` asks before).
    """
    from sqlalchemy import text

    check_kind(file, uri)
    address = _parse(uri)
    if address.get_backend_name() == "sqlite":
        target = Path(_database(address))
        with atomic_file(target) as part:
            _copy_sqlite(file, part, moved)
            with _sqlite(part) as connection:
                _check_same(rows or {}, _rows(connection), f"{target}: the copy")
            for journal in ("-wal", "-shm"):
                Path(f"{target}{journal}").unlink(missing_ok=True)  # they belong to the replaced file
        return
    with tempfile.TemporaryDirectory() as folder:
        # Not piped into psql: a broken pipe would end the script early, and psql would commit the first part.
        script = Path(folder) / "script.sql"
        _postgres(address, "pg_restore", "--clean", "--if-exists", "--no-owner", f"--file={script}", str(file))
        _check_restricted(script)
        options = ("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--output=/dev/null")
        _postgres(address, "psql", *options, "-c", _DROP_TABLES, "-f", str(script))
    with _connected(address) as connection:
        if moved is not None:
            readdress(connection, *moved)
        if own is not None and (elsewhere := folders_elsewhere(connection, own)):
            connection.execute(text(_DROP_TABLES))
            connection.commit()
            raise StageFailed(
                f"{file}: it names folders of this machine as artefacts, such as {elsewhere[0]}, as no backup does; "
                f"{address.render_as_string()} is empty now"
            )
        _check_same(rows or {}, _rows(connection), f"{address.render_as_string()}: the restored database")


def _check_restricted(script: Path) -> None:
    """Raise UserError unless the script begins by forbidding psql's own commands, of which one runs programs.

    The names in a backup can hold such commands; pg_restore forbids them since August 2025 (CVE-2025-8714).
    """
    with script.open("rb") as file:
        lines = (line for line in file if line.strip() and not line.startswith(b"--"))
        if not next(lines, b"").startswith(b"\\restrict "):
            raise UserError(
                "pg_restore of this release writes scripts that could run programs; install the newest minor release "
                "of PostgreSQL: apt-get install --only-upgrade postgresql-client-common 'postgresql*'"
            )


def is_copy(file: Path, uri: str, moved: Moved = None) -> bool:
    """Whether the SQLite database at `uri` has the bytes of the copy `file`: loaded, and not written to since."""
    address = _parse(uri)
    target = Path(_database(address))
    if address.get_backend_name() != "sqlite" or not target.is_file():
        return False
    with tempfile.TemporaryDirectory() as folder:
        loaded = Path(folder) / file.name
        _copy_sqlite(file, loaded, moved)
        return sha256(target) == sha256(loaded)


def _copy_sqlite(file: Path, target: Path, moved: Moved) -> None:
    """Copy an SQLite file, with the addresses of artefacts `moved`; the same input gives the same bytes."""
    from sqlalchemy.engine import URL

    shutil.copyfile(file, target)
    if moved is not None:
        with _connected(URL.create("sqlite", database=str(target))) as connection:
            readdress(connection, *moved)


def is_empty(uri: str) -> bool:
    """Whether the database at `uri` has no tables, or its SQLite file is missing; StageFailed if opening fails."""
    from sqlalchemy import inspect

    address = _parse(uri)
    if address.get_backend_name() == "sqlite" and not Path(_database(address)).is_file():
        return True
    with _connected(address) as connection:
        return not inspect(connection).get_table_names()


@contextmanager
def _connected(address: Any, **options: Any) -> Iterator[Any]:
    """Yield a connection of SQLAlchemy; raise StageFailed where the database cannot be opened or read."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError

    if address.get_backend_name() == "postgresql":
        address = address.set(drivername="postgresql+psycopg2")  # the installed one, whichever is SQLAlchemy's default
    try:
        engine = create_engine(address, **options)
    except ImportError as error:
        raise UserError(f"PostgreSQL needs {error.name}: pip install -c constraints.txt '.[stack]'") from None
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        why = str(error.orig).strip().splitlines()[0]
        raise StageFailed(f"{address.render_as_string()}: it cannot be opened: {why}") from None
    finally:
        engine.dispose()


def _sqlite(file: Path) -> Any:
    """Return `_connected` for reading an SQLite file."""
    from sqlalchemy.engine import URL

    def opened() -> sqlite3.Connection:
        return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)

    return _connected(URL.create("sqlite", database=str(file)), creator=opened)


def _rows(connection: Any) -> dict[str, int]:
    """Return the number of rows of every table by its name, with its schema in PostgreSQL."""
    from sqlalchemy import func, inspect, select, table

    inspector = inspect(connection)
    postgres = connection.dialect.name == "postgresql"
    schemas = [name for name in inspector.get_schema_names() if name != "information_schema"] if postgres else [None]
    tables = [(schema, name) for schema in schemas for name in inspector.get_table_names(schema)]
    return {
        ".".join(filter(None, (schema, name))): connection.scalar(
            select(func.count()).select_from(table(name, schema=schema))
        )
        for schema, name in sorted(tables)
    }


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


def _dump_sqlite(address: Any, target: Path) -> tuple[dict[str, int], dict[str, int]]:
    database, file = Path(_database(address)), target.with_suffix(".sqlite")
    if not database.is_file():
        raise UserError(f"{database}: no such database")
    with _sqlite(database) as source:
        source.exec_driver_sql("BEGIN")  # the count and the copy are of the same moment
        original = _rows(source)
        try:
            with closing(sqlite3.connect(file)) as copy:
                source.connection.driver_connection.backup(copy)
                problem = copy.execute("pragma integrity_check").fetchone()[0]
                # The copy of a database with a write-ahead log, as Airflow's, would have one beside it when it is read.
                copy.execute("pragma journal_mode=delete")
        except sqlite3.Error as error:
            raise StageFailed(f"{database}: it cannot be copied: {error}") from None
    if problem != "ok":
        raise StageFailed(f"{database}: the database is damaged: {problem}")
    with _sqlite(file) as connection:
        return original, _rows(connection)


def _dump_postgres(address: Any, target: Path) -> tuple[dict[str, int], dict[str, int]]:
    from sqlalchemy import text

    file = target.with_suffix(".pgdump")
    with _connected(address, isolation_level="REPEATABLE READ") as source:
        snapshot = source.scalar(text("SELECT pg_export_snapshot()"))
        original = _rows(source)
        _postgres(address, "pg_dump", "--format=custom", "--no-owner", f"--snapshot={snapshot}", f"--file={file}")
    copied: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.sql"
        _postgres(address, "pg_restore", "--data-only", f"--file={script}", str(file))
        with script.open("rb") as lines:
            name = None
            for line in lines:
                if name is None and (match := _COPY.match(line.decode(errors="replace"))):
                    parts = (part.removeprefix('"').removesuffix('"').replace('""', '"') for part in match.groups())
                    name = ".".join(parts)
                    copied[name] = 0
                elif name is not None and line == b"\\.\n":
                    name = None
                elif name is not None:
                    copied[name] += 1
    return original, copied


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
    """Run a PostgreSQL program; where the address names a host, no setting of the surroundings leads elsewhere."""
    # In the environment, because every user of the machine can read command lines, and since a name of a database with
    # an equals sign would be read as options of the connection there.
    given = {
        "PGHOST": address.host or address.query.get("host"),
        "PGPORT": address.port or address.query.get("port"),
        "PGUSER": address.username,
        "PGPASSWORD": address.password,
        "PGDATABASE": _database(address),
    }
    environment = clean_environment()
    if given["PGHOST"]:
        environment = {key: value for key, value in environment.items() if key not in _ELSEWHERE}
    environment |= {key: str(value) for key, value in given.items() if value}
    run_program(name, _program(name), *arguments, env=environment)
