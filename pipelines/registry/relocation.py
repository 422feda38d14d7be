"""Artefacts of a checkout that was moved, copied or restored: MLflow's database names their folders by absolute paths.

Without a change, a checkout at another place would write its artefacts at the old place, where no backup of it looks
and the next removal of the old checkout deletes them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

ARTEFACTS = "mlartifacts"
# How the names begin under which MLflow writes artefacts in a folder, before it renames them.
_UPLOADING = ".artifact.uploading."
# Every column of MLflow's schema that holds the address of artefacts.
_COLUMNS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
}
# Where only some rows of a table hold addresses: a column, and its value in those rows.
_ROWS = {"trace_tags": ("key", "mlflow.artifactLocation")}


def unfinished_uploads(root: Path) -> list[Path]:
    """Return the files under temporary names that a killed process left among the artefacts of the checkout `root`."""
    return sorted((root / ARTEFACTS).rglob(f"{_UPLOADING}*"))


def bring_home(database: Path, experiment: str) -> None:
    """Make the MLflow `database` of a checkout name the artefacts beside it, where it was moved or copied here.

    Artefacts that are only at the old place are copied. A folder that somebody chose for the experiment stays. Prints
    what was changed; a killed call is finished by the next one.
    """
    if not database.is_file():
        return
    here = database.parent / ARTEFACTS
    with _opened(database).connect() as connection:
        old = _folder_of(connection, experiment)
        if old is None or old == here or not _moved(old, here):
            return
        copied = [folder for folder in _missing_folders(connection, old, here) if _copy(folder, old, here)]
        # The experiment that MLflow begins with, where traces and a person's own runs are, has its folder beside it.
        changed = sum(readdress(connection, old.parent / one, here.parent / one) for one in (ARTEFACTS, "mlruns"))
    note = f", {len(copied)} of which were copied from there" if copied else ""
    print(f"{database}: was at {old.parent}; {changed} addresses of artefacts now name {here}{note}", file=sys.stderr)


def readdress(connection: Any, old: Path, new: Path) -> int:
    """Make every address of artefacts in the folder `old` name the folder `new`, and commit; return how many.

    `connection` is SQLAlchemy's, to a database of any version of MLflow.
    """
    from sqlalchemy import func, literal, or_, update

    changed = 0
    for holder, place, here in _present_columns(connection):
        for first, second in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
            within = or_(place == first, func.substr(place, 1, len(first) + 1) == f"{first}/")
            moved = literal(second).concat(func.substr(place, len(first) + 1))
            changed += connection.execute(update(holder).where(here, within).values({place.name: moved})).rowcount
    connection.commit()
    return changed


def artefacts_elsewhere(database: Path, folder: Path | None) -> list[Path]:
    """Return the local folders with artefacts that the MLflow `database` (SQLite) names outside of `folder`."""
    with _opened(database).connect() as connection:
        return folders_elsewhere(connection, [] if folder is None else [folder])


def folders_elsewhere(connection: Any, own: Sequence[Path]) -> list[Path]:
    """Return the folders of this machine, with files, that an MLflow database names outside of the folders `own`."""
    places = {place for place in _places(connection) if not any(map(place.is_relative_to, own))}
    return sorted(place for place in places if place.is_dir() and any(place.iterdir()))


def _opened(database: Path) -> Any:
    from sqlalchemy import create_engine
    from sqlalchemy.engine import URL
    from sqlalchemy.pool import NullPool

    return create_engine(URL.create("sqlite", database=str(database)), poolclass=NullPool, connect_args={"timeout": 60})


def _folder_of(connection: Any, experiment: str) -> Path | None:
    """Return the local folder of an experiment's artefacts; None without the experiment or where it is not local."""
    from sqlalchemy import column, select

    for holder, place, _ in _present_columns(connection):
        if holder.name == "experiments":
            found = connection.scalar(select(place).select_from(holder).where(column("name") == experiment))
            return None if found is None else _local_path(found)
    return None


def _moved(old: Path, here: Path) -> bool:
    """Whether `old` is where this checkout, or the one that it is a copy of, had its artefacts; else it was chosen."""
    return old.name == ARTEFACTS and (here.is_dir() or not old.is_dir() or (old.parent / "mlflow.db").is_file())


def _missing_folders(connection: Any, old: Path, here: Path) -> list[Path]:
    """Return the folders below `old`, of a run or a model each, that are not below `here`."""
    folders = {place.parent for place in _places(connection) if place.is_relative_to(old) and place != old}
    return sorted(folder for folder in folders if folder.is_dir() and not (here / folder.relative_to(old)).exists())


def _copy(folder: Path, old: Path, here: Path) -> bool:
    from pipelines.core.files import atomic_folder

    with atomic_folder(here / folder.relative_to(old)) as part:
        shutil.copytree(folder, part, dirs_exist_ok=True)
    return True


def _places(connection: Any) -> Iterator[Path]:
    """Yield the local path of each address of artefacts."""
    from sqlalchemy import select

    for holder, place, here in _present_columns(connection):
        for address in connection.scalars(select(place).select_from(holder).where(here, place.is_not(None))):
            if (path := _local_path(address)) is not None:
                yield path


def _present_columns(connection: Any) -> list[tuple[Any, Any, Any]]:
    """Return SQLAlchemy's table, column and condition of those of _COLUMNS that this version of MLflow has."""
    from sqlalchemy import column, inspect, table, true

    inspector = inspect(connection)
    known = {
        name: {one["name"] for one in inspector.get_columns(name)} for name in _COLUMNS if inspector.has_table(name)
    }
    rows = {name: column(_ROWS[name][0]) == _ROWS[name][1] if name in _ROWS else true() for name in known}
    return [
        (table(name, column(one)), column(one), rows[name])
        for name in known
        for one in _COLUMNS[name]
        if one in known[name]
    ]


def _local_path(address: str) -> Path | None:
    """Return the path of a local address of artefacts (a path or a file URI), None for another one."""
    if address.startswith("/"):
        return Path(os.path.normpath(address))
    parts = urlsplit(address)
    return (
        Path(os.path.normpath(url2pathname(parts.path)))
        if parts.scheme == "file" and parts.netloc in ("", "localhost")
        else None
    )
