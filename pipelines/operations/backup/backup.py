"""Back up MLflow, its accounts, Airflow's database and git's tags, and check a backup.

A backup is a folder: `manifest.json` with the sha256 of every file, `mlflow.*` and `artefacts/` (MLflow), `airflow.*`,
and `refs.bundle` (git: dataset versions, snapshots of models, saved runs); for a stack also `accounts.*` (MLflow's) and
`credentials.env`. Datasets and models are not included: `dvc push` copies them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_folder, sha256, write_atomically
from pipelines.core.formats.folders import stated_version
from pipelines.core.formats.table import BACKUP, KEY
from pipelines.operations.backup.databases import dump
from pipelines.operations.backup.locations import Locations
from pipelines.operations.stack.credentials import FILE, OWNER_ONLY
from pipelines.registry.relocation import artefacts_elsewhere
from pipelines.versions.git import git

MANIFEST = "manifest.json"
ARTEFACTS = "artefacts"
BUNDLE = "refs.bundle"
# Tags and saved runs (refs/exps/<2>/<38 digits>/<name>); a bundle of all refs would include every branch.
REFS = ("refs/tags", "refs/exps/*/*/*")


@dataclass(frozen=True)
class Manifest:
    """When the backup was made, MLflow's artefact folder, and the sha256 (hex) of each file.

    `served`: MLflow refers to artefacts through its server and not by path, so that they can be restored elsewhere.
    """

    made: str
    artefacts: str | None
    files: dict[str, str]
    served: bool = False

    @property
    def secret(self) -> bool:
        """Whether the backup contains passwords and keys."""
        return FILE in self.files

    def databases(self) -> dict[str, str]:
        """Return {name: file} of its databases; names are mlflow, accounts and airflow."""
        return {Path(name).stem: name for name in self.files if Path(name).suffix in (".sqlite", ".pgdump")}

    def contents(self) -> list[str]:
        """Return a description of each part."""
        artefacts = sum(name.startswith(f"{ARTEFACTS}/") for name in self.files)
        parts = [f"the database of {name}" for name in self.databases()]
        parts += [f"{artefacts} artefacts of {self.artefacts}"] if artefacts else []
        parts += ["tags and saved runs"] if BUNDLE in self.files else []
        return parts + ([f"passwords and keys ({FILE})"] if self.secret else [])


def make_backup(locations: Locations, target: Path) -> Manifest:
    """Write a backup into the new folder `target`, completely or not at all; return its manifest.

    Databases are copied before artefacts, so that every artefact they refer to is copied even if runs log meanwhile.
    With passwords and keys in it, the folder has mode 700.
    """
    _check_new(target)
    databases = locations.databases()
    if not databases:
        raise UserError("nothing to back up: neither MLflow's nor Airflow's database was found or named")
    with atomic_folder(target, mode=0o777 if locations.credentials is None else 0o700) as part:
        if locations.credentials is not None:
            write_atomically(part / FILE, locations.credentials.read_bytes(), mode=OWNER_ONLY)
        for name, uri in databases.items():
            copy = dump(uri, part / name)
            if name == "mlflow" and copy.suffix == ".sqlite" and not locations.served:
                _check_artefacts(copy, locations.artefacts)
        if locations.artefacts is not None and locations.artefacts.is_dir():
            shutil.copytree(locations.artefacts, part / ARTEFACTS)
        refs = git(locations.root, "for-each-ref", "--format=%(refname)", *REFS).split()
        if refs:
            git(locations.root, "bundle", "create", "--quiet", str((part / BUNDLE).resolve()), *refs)
        manifest = Manifest(
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            artefacts=None if locations.artefacts is None else str(locations.artefacts),
            files={name: sha256(part / name) for name in _files(part)},
            served=locations.served,
        )
        content = {KEY: BACKUP.version, **asdict(manifest)}
        (part / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        _check_new(target)
    return manifest


def _check_artefacts(database: Path, folder: Path | None) -> None:
    """Raise StageFailed where the copied MLflow `database` names artefacts that are not in `folder`, so not copied."""
    elsewhere = artefacts_elsewhere(database, folder)
    if elsewhere:
        raise StageFailed(
            f"MLflow's database names {len(elsewhere)} folders of artefacts outside of {folder or 'this checkout'}, "
            f"such as {elsewhere[0]}: the backup would leave them out; --artefacts names their folder"
        )


def _check_new(target: Path) -> None:
    if target.exists():
        raise UserError(f"{target}: it exists; a backup needs a new folder")


def read_backup(folder: Path) -> Manifest:
    """Return the manifest of a backup after checking every file; raise UserError naming what is wrong."""
    file = folder / MANIFEST
    if not file.is_file():
        raise UserError(f"{folder}: not a backup; expected a folder with {MANIFEST}, as `dynamicid backup` writes it")
    stated_version(BACKUP, file)
    try:
        manifest = TypeAdapter(Manifest).validate_json(file.read_bytes())
    except ValidationError:
        raise UserError(f"{file}: damaged: not a backup's manifest; copy it again, or restore another backup") from None
    present = set(_files(folder)) - {MANIFEST}
    wrong = [f"{name} is missing" for name in sorted(set(manifest.files) - present)]
    wrong += [f"{name} is not in {MANIFEST}" for name in sorted(present - set(manifest.files))]
    in_both = sorted(present & set(manifest.files))
    wrong += [f"{name} is damaged" for name in in_both if sha256(folder / name) != manifest.files[name]]
    if wrong:
        raise UserError(f"{folder}: {'; '.join(wrong[:5])}; nothing was restored")
    return manifest


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
