"""Backups of registry, accounts, Airflow's database and the tags that name versions: made whole, and checked.

A backup is a folder: `manifest.json` with the sha256 of every file, `mlflow.*` and `artefacts/` (the ledger),
`airflow.*`, and `refs.bundle` (git: dataset versions, snapshots of models, saved runs); of a stack also `accounts.*`
(MLflow's) and `credentials.env`. Data and models of the pipeline are DVC's: `dvc push` keeps their copies.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.files import atomic_folder, sha256, write_atomically
from pipelines.operations.backup.databases import dump
from pipelines.operations.backup.places import Places
from pipelines.operations.stack.credentials import FILE, OWNER_ONLY
from pipelines.versions.git import git

MANIFEST = "manifest.json"
ARTEFACTS = "artefacts"
BUNDLE = "refs.bundle"
# What tags and saved runs (refs/exps/<2>/<38 digits>/<name>) are called in git; a bundle of all refs would hold every
# branch of everybody.
REFS = ("refs/tags", "refs/exps/*/*/*")


@dataclass(frozen=True)
class Manifest:
    """When the backup was made, of what, and the sha256 (hex) of each of its files.

    `served`: the ledger does not name its artefacts by the path `artefacts`, so that they may go to another one.
    """

    made: str
    artefacts: str | None
    files: dict[str, str]
    served: bool = False

    @property
    def secret(self) -> bool:
        """Whether passwords and keys are in it."""
        return FILE in self.files

    def databases(self) -> dict[str, str]:
        """Return the file of each database by its name: mlflow, accounts, airflow."""
        return {Path(name).stem: name for name in self.files if Path(name).suffix in (".sqlite", ".pgdump")}

    def contents(self) -> list[str]:
        """Return in words what it holds."""
        artefacts = sum(name.startswith(f"{ARTEFACTS}/") for name in self.files)
        held = [f"the database of {name}" for name in self.databases()]
        held += [f"{artefacts} artefacts of {self.artefacts}"] if artefacts else []
        held += ["tags and saved runs"] if BUNDLE in self.files else []
        return held + ([f"passwords and keys ({FILE})"] if self.secret else [])


def make_backup(places: Places, target: Path) -> Manifest:
    """Write a backup into the new folder `target`, which is there whole or not at all; return its manifest.

    The databases go before the artefacts: what they name is then among them, whatever is logged meanwhile. Where it
    holds passwords and keys, nobody but its owner can enter the folder.
    """
    _check_new(target)
    databases = places.databases()
    if not databases:
        raise UserError("nothing to back up: neither a ledger nor Airflow's database was found or named")
    with atomic_folder(target, mode=0o777 if places.credentials is None else 0o700) as part:
        if places.credentials is not None:
            write_atomically(part / FILE, places.credentials.read_bytes(), mode=OWNER_ONLY)
        for name, uri in databases.items():
            dump(uri, part / name)
        if places.artefacts is not None and places.artefacts.is_dir():
            shutil.copytree(places.artefacts, part / ARTEFACTS)
        refs = git(places.root, "for-each-ref", "--format=%(refname)", *REFS).split()
        if refs:
            git(places.root, "bundle", "create", "--quiet", str((part / BUNDLE).resolve()), *refs)
        manifest = Manifest(
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            artefacts=None if places.artefacts is None else str(places.artefacts),
            files={name: sha256(part / name) for name in _files(part)},
            served=places.served,
        )
        (part / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
        _check_new(target)
    return manifest


def _check_new(target: Path) -> None:
    if target.exists():
        raise UserError(f"{target}: it exists; a backup needs a folder of its own")


def read_backup(folder: Path) -> Manifest:
    """Return the manifest of a backup after checking every file against it; UserError names what is wrong."""
    file = folder / MANIFEST
    if not file.is_file():
        raise UserError(f"{folder}: no backup; expected a folder with {MANIFEST}, as `dynamicid backup` writes it")
    manifest = Manifest(**json.loads(file.read_text(encoding="utf-8")))
    present = set(_files(folder)) - {MANIFEST}
    wrong = [f"{name} is missing" for name in sorted(set(manifest.files) - present)]
    wrong += [f"{name} does not belong to it" for name in sorted(present - set(manifest.files))]
    wrong += [
        f"{name} is damaged"
        for name in sorted(present & set(manifest.files))
        if sha256(folder / name) != manifest.files[name]
    ]
    if wrong:
        raise UserError(f"{folder}: {'; '.join(wrong[:5])}; nothing was restored")
    return manifest


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
