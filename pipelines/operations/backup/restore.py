"""A backup put back: everything is checked first, and what is there already is replaced only where that was asked for.

A backup of a stack goes into a stack that does not run; see `stack_restore`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.files import atomic_file, sha256
from pipelines.operations.backup.backup import ARTEFACTS, BUNDLE, REFS, Manifest
from pipelines.operations.backup.databases import check_kind, is_empty, load
from pipelines.operations.backup.places import Places
from pipelines.operations.stack.credentials import FILE
from pipelines.versions.git import git, run_git


@dataclass(frozen=True)
class Restored:
    """What was put back, and what stays in the backup because it has no place; both in words."""

    done: list[str]
    left: list[str]


def restore_backup(folder: Path, manifest: Manifest, places: Places, *, force: bool = False) -> Restored:
    """Put the backup `folder`, whose checked manifest is `manifest`, into `places`; return what was restored.

    Raises UserError, and nothing is changed, where a database or an artefact would be replaced without `force`.
    Servers that use the databases must not run meanwhile.
    """
    check_places(folder, manifest, places, force=force)
    return fill_places(folder, manifest, places)


def check_places(folder: Path, manifest: Manifest, places: Places, *, force: bool) -> None:
    """Raise UserError where the backup does not fit into `places`, or something is there and `force` is not given."""
    wanted = _wanted(manifest, places)
    for name, uri in wanted.items():
        check_kind(folder / manifest.databases()[name], uri)
    full = [name for name, uri in wanted.items() if not is_empty(uri)]
    if full and not force:
        raise UserError(f"the databases of {' and '.join(full)} hold something already; --force replaces them")
    if places.artefacts is None or not (folder / ARTEFACTS).is_dir():
        return
    if not manifest.served and str(places.artefacts) != manifest.artefacts:
        raise UserError(
            f"the ledger of this backup names its artefacts in {manifest.artefacts}, they cannot go to "
            f"{places.artefacts}: restore into a checkout at the same path"
        )
    others = [] if force else _other_artefacts(manifest, places.artefacts)
    if others:
        raise UserError(
            f"{places.artefacts}: {len(others)} files are others than in the backup, the first is {others[0]}; "
            "--force replaces them"
        )


def fill_places(folder: Path, manifest: Manifest, places: Places) -> Restored:
    """Put artefacts, databases and tags into `places`, which were checked; artefacts and tags are only added to."""
    done, left = [], []
    if (folder / ARTEFACTS).is_dir() and places.artefacts is not None:
        shutil.copytree(folder / ARTEFACTS, places.artefacts, dirs_exist_ok=True, copy_function=_copy)
        done.append(f"artefacts to {places.artefacts}")
    wanted = _wanted(manifest, places)
    for name, file in manifest.databases().items():
        if name in wanted:
            load(folder / file, wanted[name])
            done.append(f"database of {name}")
        else:
            left.append(f"database of {name} (its address is named with --{_OPTIONS[name]})")
    if manifest.secret and places.credentials is None:
        left.append(FILE)
    if (folder / BUNDLE).is_file():
        added = _restore_refs(places.root, folder / BUNDLE)
        done.append(f"{added} tags and saved runs")
    return Restored(done, left)


_OPTIONS = {"mlflow": "ledger", "accounts": "accounts", "airflow": "airflow"}


def _wanted(manifest: Manifest, places: Places) -> dict[str, str]:
    return {name: uri for name, uri in places.databases().items() if name in manifest.databases()}


def _other_artefacts(manifest: Manifest, target: Path) -> list[str]:
    """Return the files of the target folder that have the name of one in the backup and other bytes."""
    inside = {name.removeprefix(f"{ARTEFACTS}/"): digest for name, digest in manifest.files.items() if "/" in name}
    return [name for name, digest in inside.items() if (target / name).is_file() and sha256(target / name) != digest]


def _copy(source: str, target: str) -> str:
    with atomic_file(Path(target)) as part:
        shutil.copy2(source, part)
    return target


def _restore_refs(root: Path, bundle: Path) -> int:
    """Bring back tags and saved runs that are not here; those that are stay as they are. Return how many."""
    before = set(git(root, "for-each-ref", "--format=%(refname)", *REFS).split())
    listed = git(root, "bundle", "list-heads", str(bundle.resolve())).splitlines()
    missing = [ref for line in listed if (ref := line.split(maxsplit=1)[1]) not in before]
    if missing:
        refs = [f"{ref}:{ref}" for ref in missing]
        done = run_git(root, "fetch", "--quiet", "--no-tags", str(bundle.resolve()), *refs)
        if done.code:
            raise UserError(f"{bundle}: git cannot read it: {done.problem}")
    return len(missing)
