"""Backups of the registry, of Airflow's database and of the tags that name versions: made whole, checked, put back.

A backup is a folder: `manifest.json` with the sha256 of every file, `mlflow.*` and `artefacts/` (the ledger),
`airflow.*`, and `refs.bundle` (git: dataset versions, snapshots of models, saved runs). Data and models of the pipeline
are DVC's: `dvc push` keeps their copies.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipelines.errors import UserError
from pipelines.git_tags import git, run_git
from pipelines.keeping.databases import dump, is_empty, load

MANIFEST = "manifest.json"
ARTEFACTS = "artefacts"
BUNDLE = "refs.bundle"
# What tags and saved runs are called in git; a bundle of all refs would hold every branch of everybody.
_REFS = ("refs/tags/*", "refs/exps/*")


@dataclass(frozen=True)
class Places:
    """What is backed up: two databases (SQLAlchemy addresses), the folder of MLflow's artefacts, the checkout.

    None: there is none, or it is kept elsewhere (artefacts in an object store).
    """

    root: Path
    ledger: str | None
    artefacts: Path | None
    airflow: str | None


@dataclass(frozen=True)
class Manifest:
    """When the backup was made, of what, and the sha256 (hex) of each of its files."""

    made: str
    artefacts: str | None
    files: dict[str, str]


def make_backup(places: Places, target: Path) -> Manifest:
    """Write a backup into the new folder `target`, which is there whole or not at all; return its manifest.

    The database goes before the artefacts: what it names is then among them, whatever is logged meanwhile.
    """
    if target.exists():
        raise UserError(f"{target}: it exists; a backup needs a folder of its own")
    if places.ledger is None and places.airflow is None:
        raise UserError("nothing to back up: neither a ledger nor Airflow's database was found or named")
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if places.ledger is not None:
            dump(places.ledger, part / "mlflow")
        if places.airflow is not None:
            dump(places.airflow, part / "airflow")
        if places.artefacts is not None and places.artefacts.is_dir():
            shutil.copytree(places.artefacts, part / ARTEFACTS)
        refs = git(places.root, "for-each-ref", "--format=%(refname)", *_REFS).split()
        if refs:
            git(places.root, "bundle", "create", "--quiet", str((part / BUNDLE).resolve()), *refs)
        manifest = Manifest(
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            artefacts=None if places.artefacts is None else str(places.artefacts),
            files={name: _sha256(part / name) for name in _files(part)},
        )
        (part / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return manifest


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
        if _sha256(folder / name) != manifest.files[name]
    ]
    if wrong:
        raise UserError(f"{folder}: {'; '.join(wrong[:5])}; nothing was restored")
    return manifest


def restore_backup(folder: Path, places: Places, *, force: bool = False) -> list[str]:
    """Put a backup back into `places` and return what was restored.

    Everything is checked first, so that nothing is changed where something is wrong. A place that holds something is
    replaced with `force` only; artefacts are added to and never removed. Servers must not run meanwhile.
    """
    manifest = read_backup(folder)
    names = {name.split(".")[0]: folder / name for name in manifest.files if "/" not in name}
    wanted = [
        (name, uri) for name, uri in (("mlflow", places.ledger), ("airflow", places.airflow)) if name in names and uri
    ]
    full = [name for name, uri in wanted if not is_empty(uri)]
    if full and not force:
        raise UserError(f"the databases of {' and '.join(full)} hold something already; --force replaces them")
    if (folder / ARTEFACTS).is_dir() and str(places.artefacts) != manifest.artefacts:
        raise UserError(
            f"the ledger of this backup names its artefacts in {manifest.artefacts}, they cannot go to "
            f"{places.artefacts}: restore into a checkout at the same path"
        )
    done = []
    if (folder / ARTEFACTS).is_dir() and places.artefacts is not None:
        shutil.copytree(folder / ARTEFACTS, places.artefacts, dirs_exist_ok=True)
        done.append(f"artefacts to {places.artefacts}")
    for name, uri in wanted:
        load(names[name], uri)
        done.append(f"database of {name}")
    if (folder / BUNDLE).is_file():
        added = _restore_refs(places.root, folder / BUNDLE)
        done.append(f"{added} tags and saved runs")
    return done


def _restore_refs(root: Path, bundle: Path) -> int:
    """Bring back tags and saved runs that are not here; those that are stay as they are. Return how many."""
    before = set(git(root, "for-each-ref", "--format=%(refname)", *_REFS).split())
    listed = git(root, "bundle", "list-heads", str(bundle.resolve())).splitlines()
    missing = [ref for line in listed if (ref := line.split(maxsplit=1)[1]) not in before]
    if missing:
        code, _, problem = run_git(
            root, "fetch", "--quiet", "--no-tags", str(bundle.resolve()), *(f"{ref}:{ref}" for ref in missing)
        )
        if code:
            raise UserError(f"{bundle}: git cannot read it: {problem}")
    return len(missing)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
