"""Artefacts of a checkout that was moved or copied: MLflow's database names their folders by absolute paths.

Without a change, a checkout at another place would write its artefacts at the old place, where no backup of it looks
and the next removal of the old checkout deletes them.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

ARTEFACTS = "mlartifacts"
# Every column of MLflow's schema that holds the address of artefacts.
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def bring_home(database: Path, experiment: str) -> None:
    """Make the MLflow `database` of a checkout name the artefacts beside it, where it was moved or copied here.

    Artefacts that are only at the old place are copied. A folder that somebody chose for the experiment stays. Prints
    what was changed; a killed call is finished by the next one.
    """
    if not database.is_file():
        return
    here = database.parent / ARTEFACTS
    with closing(sqlite3.connect(database, timeout=60)) as open_database:
        old = _folder_of(open_database, experiment)
        if old is None or old == here or not _moved(old, here):
            return
        copied = [folder for folder in _missing_folders(open_database, old, here) if _copy(folder, old, here)]
        with open_database:
            open_database.execute("begin immediate")
            changed = sum(
                _replace(open_database, table, column, first, second)
                for table, column in _present_columns(open_database)
                for first, second in ((old.as_uri(), here.as_uri()), (str(old), str(here)))
            )
    note = f", {len(copied)} of which were copied from there" if copied else ""
    print(f"{database}: was at {old.parent}; {changed} addresses of artefacts now name {here}{note}", file=sys.stderr)


def artefacts_elsewhere(database: Path, folder: Path | None) -> list[Path]:
    """Return the local folders with artefacts that the MLflow `database` (SQLite) names outside of `folder`."""
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as open_database:
        places = {place for place in map(_local_path, _addresses(open_database)) if place is not None}
    return sorted(
        place
        for place in places
        if place.is_dir() and any(place.iterdir()) and not (folder is not None and place.is_relative_to(folder))
    )


def _folder_of(open_database: sqlite3.Connection, experiment: str) -> Path | None:
    """Return the local folder of an experiment's artefacts; None without the experiment or where it is not local."""
    if ("experiments", "artifact_location") not in _present_columns(open_database):
        return None
    row = open_database.execute("select artifact_location from experiments where name = ?", (experiment,)).fetchone()
    return None if row is None else _local_path(row[0])


def _moved(old: Path, here: Path) -> bool:
    """Whether `old` is where this checkout, or the one that it is a copy of, had its artefacts; else it was chosen."""
    return old.name == ARTEFACTS and (here.is_dir() or not old.is_dir() or (old.parent / "mlflow.db").is_file())


def _missing_folders(open_database: sqlite3.Connection, old: Path, here: Path) -> list[Path]:
    """Return the folders below `old`, of a run or a model each, that are not below `here`."""
    places = {place for place in map(_local_path, _addresses(open_database)) if place is not None}
    folders = {place.parent for place in places if place.is_relative_to(old) and place != old}
    return sorted(folder for folder in folders if folder.is_dir() and not (here / folder.relative_to(old)).exists())


def _copy(folder: Path, old: Path, here: Path) -> bool:
    from pipelines.core.files import atomic_folder

    with atomic_folder(here / folder.relative_to(old)) as part:
        shutil.copytree(folder, part, dirs_exist_ok=True)
    return True


def _addresses(open_database: sqlite3.Connection) -> Iterator[str]:
    for table, column in _present_columns(open_database):
        yield from (text for (text,) in open_database.execute(f"select {column} from {table}") if text)


def _present_columns(open_database: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return those of _COLUMNS that this version of MLflow has."""
    known = {
        (table, row[1])
        for table in {table for table, _ in _COLUMNS}
        for row in open_database.execute(f"pragma table_info({table})")
    }
    return [column for column in _COLUMNS if column in known]


def _replace(open_database: sqlite3.Connection, table: str, column: str, old: str, new: str) -> int:
    done = open_database.execute(
        f"update {table} set {column} = ? || substr({column}, ?) where {column} = ? or substr({column}, 1, ?) = ?",
        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
    )
    return done.rowcount


def _local_path(address: str) -> Path | None:
    """Return the path of a local address of artefacts (a path or a file URI), None for another one."""
    if address.startswith("/"):
        return Path(address)
    parts = urlsplit(address)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None
