"""Migrate the tables of an MLflow database file, and state the version of what the project records in it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_file
from pipelines.core.formats.table import TRACKING, check_text
from pipelines.registry.settings import EXPERIMENT, FORMAT_TAG

_SELECT = (
    "SELECT e.experiment_id, t.value FROM experiments e "
    "LEFT JOIN experiment_tags t ON t.experiment_id = e.experiment_id AND t.key = ? WHERE e.name = ?"
)
_STATE = "INSERT OR REPLACE INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?)"
_SECONDS = 10.0


@dataclass(frozen=True)
class DatabaseState:
    """Whether the tables are those of the installed MLflow, and the version of the project's records in them."""

    current: bool
    version: int


def installed() -> str:
    """Return the version of the installed MLflow."""
    import mlflow

    return str(mlflow.__version__)


def state_of(file: Path) -> DatabaseState:
    """Return the state of a database file, which is only read; raise UserError where a newer program wrote it."""
    with _opened(file, "ro") as connection:
        present = [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")]
        rows = connection.execute(_SELECT, (FORMAT_TAG, EXPERIMENT)).fetchall()
    version = check_text(TRACKING, file, rows[0][1]) if rows else TRACKING.version
    return DatabaseState(_is_current(file, present), version)


def migrate(file: Path) -> None:
    """Bring a database file up to date.

    Raises StageFailed, and changes nothing, where another process is writing.
    """
    if not state_of(file).current:
        _migrate_tables(file)
    with _writing(file) as connection:
        for experiment, _ in connection.execute(_SELECT, (FORMAT_TAG, EXPERIMENT)).fetchall():
            connection.execute(_STATE, (FORMAT_TAG, str(TRACKING.version), experiment))
        connection.commit()


def _migrate_tables(file: Path) -> None:
    """Migrate a copy of the database, which then replaces it: MLflow's own steps cannot be taken back."""
    import mlflow.db
    from sqlalchemy.engine import URL

    with _writing(file), atomic_file(file) as part:
        with _opened(file, "ro") as source, closing(sqlite3.connect(part)) as copy:
            source.backup(copy)
        mlflow.db.upgrade.callback(URL.create("sqlite", database=str(part)).render_as_string())
        shutil.copymode(file, part)
        for journal in ("-wal", "-shm"):
            Path(f"{file}{journal}").unlink(missing_ok=True)  # they belong to the replaced file


def _is_current(file: Path, present: list[str]) -> bool:
    import mlflow
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    if present == [scripts.get_current_head()]:
        return True
    try:
        scripts.get_revisions(present)
    except CommandError:
        raise UserError(
            f"{file}: the tables of a newer MLflow (schema {', '.join(present)}) than {mlflow.__version__}, which is "
            "installed: upgrade the program (git pull, make env), or restore a backup"
        ) from None
    return False


@contextmanager
def _opened(file: Path, mode: str) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode={mode}", uri=True, timeout=_SECONDS)) as opened:
            yield opened
    except sqlite3.DatabaseError as error:
        raise StageFailed(f"{file}: it cannot be read as MLflow's database: {error}") from None


@contextmanager
def _writing(file: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection that alone may write."""
    with _opened(file, "rw") as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise StageFailed(f"{file}: {error}; end the processes that use it, then upgrade again") from None
        yield connection
