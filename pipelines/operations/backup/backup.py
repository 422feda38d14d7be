"""Back up MLflow, its accounts, Airflow's database and git's tags, and check a backup.

A backup is a folder: `manifest.json` with the sha256 of every file, `mlflow.*` and `artefacts/` (MLflow), `airflow.*`,
and `refs.bundle` (git: dataset versions, snapshots of models, saved runs); for a stack also `accounts.*` (MLflow's) and
`credentials.env`. Datasets and models are not included: `dvc push` copies them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_folder, sha256, write_atomically
from pipelines.core.formats.folders import stated_version
from pipelines.core.formats.table import BACKUP, KEY
from pipelines.core.words import counted
from pipelines.operations.backup.contents import (
    ARTEFACTS,
    BUNDLE,
    DATABASE,
    MANIFEST,
    check_contents,
    files_in,
    unknown_names,
)
from pipelines.operations.backup.databases import dump
from pipelines.operations.backup.locations import Locations
from pipelines.operations.stack.credentials import FILE, OWNER_ONLY
from pipelines.registry.relocation import artefacts_elsewhere
from pipelines.versions.git import git

# Tags and saved runs (refs/exps/<2>/<38 digits>/<name>); a bundle of all refs would include every branch.
REFS = ("refs/tags", "refs/exps/*/*/*")


# The name of a backup that a schedule makes, in UTC.
TIMED, _TIMED = "%Y%m%dT%H%M%SZ", re.compile(r"\d{8}T\d{6}Z")


@dataclass(frozen=True)
class Manifest:
    """When the backup was made, MLflow's artefact folder, and the sha256 (hex) of each file.

    `served`: MLflow refers to artefacts through its server and not by path, so that they can be restored elsewhere.
    `rows`: number of rows by database and table; empty in backups of earlier versions.
    """

    made: str
    artefacts: str | None
    files: dict[str, str]
    served: bool = False
    rows: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def secret(self) -> bool:
        """Whether the backup contains passwords and keys."""
        return FILE in self.files

    def databases(self) -> dict[str, str]:
        """Return {name: file} of its databases; names are mlflow, accounts and airflow."""
        return {match[1]: name for name in self.files if (match := DATABASE.fullmatch(name))}

    def contents(self) -> list[str]:
        """Return a description of each part."""
        artefacts = sum(name.startswith(f"{ARTEFACTS}/") for name in self.files)
        parts = [f"the database of {name}{self._counted(name)}" for name in self.databases()]
        parts += [f"{artefacts} artefacts of {self.artefacts}"] if artefacts else []
        parts += ["tags and saved runs"] if BUNDLE in self.files else []
        return parts + ([f"passwords and keys ({FILE})"] if self.secret else [])

    def _counted(self, database: str) -> str:
        tables = self.rows.get(database)
        return f" ({counted(sum(tables.values()), 'row')} in {counted(len(tables), 'table')})" if tables else ""


def make_backup(locations: Locations, target: Path, *, with_artefacts: bool = True) -> Manifest:
    """Write a backup into the new folder `target`, completely or not at all; return its manifest.

    Databases are copied before artefacts, so that every artefact they refer to is copied even if runs log meanwhile.
    With passwords and keys in it, the folder has mode 700. `with_artefacts` off: artefacts are left out, for a change
    of the databases alone.
    """
    _check_new(target)
    folder = locations.artefacts if with_artefacts else None
    databases = locations.databases()
    if not databases:
        raise UserError("nothing to back up: neither MLflow's nor Airflow's database was found or named")
    with atomic_folder(target, mode=0o777 if locations.credentials is None else 0o700) as part:
        if locations.credentials is not None:
            write_atomically(part / FILE, locations.credentials.read_bytes(), mode=OWNER_ONLY)
        rows = {}
        for name, uri in databases.items():
            rows[name] = dump(uri, part / name)
            if (
                name == "mlflow"
                and with_artefacts
                and not locations.served
                and (copy := part / "mlflow.sqlite").is_file()
            ):
                _check_artefacts(copy, folder)
        read: dict[str, str] = {}
        if folder is not None and folder.is_dir():
            shutil.copytree(folder, part / ARTEFACTS, copy_function=functools.partial(_copy, read=read))
        _bundle(locations.root, part / BUNDLE)
        manifest = Manifest(
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            artefacts=None if folder is None else str(folder),
            files={name: sha256(part / name) for name in files_in(part)},
            served=locations.served,
            rows=rows,
        )
        if strange := unknown_names(manifest.files):
            raise StageFailed(
                f"{folder}: {strange[0].removeprefix(ARTEFACTS + '/')!r}: not UTF-8, or git would take it for a "
                "repository, so that no restore accepts it; rename it"
            )
        for file, digest in read.items():
            if manifest.files.get(Path(file).relative_to(part).as_posix()) != digest:
                raise StageFailed(f"{file}: the copy is not what was read; check the disk, then run again")
        content = {KEY: BACKUP.version, **asdict(manifest)}
        (part / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        _check_new(target)
    return manifest


def remove_older(folder: Path, keep: int) -> Iterator[tuple[Path, int]]:
    """Remove all but the newest `keep` backups that are named by their time, and parts that killed ones left.

    Yields each folder and its bytes, after it was removed. Other folders stay.
    """
    whole = [path for path in sorted(folder.iterdir()) if _TIMED.fullmatch(path.name) and (path / MANIFEST).is_file()]
    parts = [path for path in sorted(folder.glob(".*.part")) if _TIMED.fullmatch(path.name[1:-5])]
    for path in (*whole[:-keep], *parts):
        size = sum((path / name).stat().st_size for name in files_in(path))
        shutil.rmtree(path)
        yield path, size


def _check_artefacts(database: Path, folder: Path | None) -> None:
    """Raise StageFailed where the copied MLflow `database` names artefacts that are not in `folder`, so not copied."""
    elsewhere = artefacts_elsewhere(database, folder)
    if elsewhere:
        raise StageFailed(
            f"MLflow's database names {counted(len(elsewhere), 'folder')} of artefacts outside of "
            f"{folder or 'this checkout'}, such as {elsewhere[0]}: the backup would leave them out; --artefacts names "
            "their folder"
        )


def _copy(source: str, target: str, *, read: dict[str, str]) -> str:
    """Copy a file and put the sha256 (hex) of the bytes that were read into `read`."""
    digest = hashlib.sha256()
    with Path(source).open("rb") as reading, Path(target).open("wb") as writing:
        while block := reading.read(2**20):
            digest.update(block)
            writing.write(block)
    shutil.copystat(source, target)
    read[target] = digest.hexdigest()
    return target


def _bundle(root: Path, file: Path) -> None:
    """Write the tags and saved runs of `root` to a bundle, unless there are none; StageFailed where one is missing."""
    refs = git(root, "for-each-ref", "--format=%(refname)", *REFS).split()
    if not refs:
        return
    git(root, "bundle", "create", "--quiet", str(file.resolve()), "--stdin", data="\n".join(refs).encode())
    listed = {line.split(maxsplit=1)[1] for line in git(root, "bundle", "list-heads", str(file.resolve())).splitlines()}
    if missing := sorted(set(refs) - listed):
        raise StageFailed(f"{file.name}: git left out {', '.join(missing[:5])}")


def _check_new(target: Path) -> None:
    if target.exists():
        raise UserError(f"{target}: it exists; a backup needs a new folder")


def read_backup(folder: Path) -> Manifest:
    """Return the manifest of a backup after checking every file; raise UserError naming what is wrong."""
    file = folder / MANIFEST
    if not file.is_file():
        raise UserError(f"{folder}: not a backup; expected a folder with {MANIFEST}, as `dynamicid backup` writes it")
    damaged = f"{file}: damaged: not a backup's manifest; copy it again, or restore another backup"
    try:
        stated_version(BACKUP, file, damaged)
        manifest = TypeAdapter(Manifest).validate_json(file.read_bytes())
    except ValidationError:
        raise UserError(damaged) from None
    check_contents(folder, manifest.files)
    return manifest
