"""Restore a backup: check everything first, and replace existing data only with `force`.

`stack_restore` restores the backup of a stack.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_file, sha256
from pipelines.operations.backup.backup import ARTEFACTS, BUNDLE, REFS, Manifest
from pipelines.operations.backup.databases import Moved, check_kind, is_copy, is_empty, load
from pipelines.operations.backup.locations import Locations
from pipelines.operations.stack.credentials import FILE
from pipelines.versions.forgotten import REASON, gate
from pipelines.versions.git import git, run_git


@dataclass(frozen=True)
class Restored:
    """Descriptions of what was restored, and of what was not because its location is unknown."""

    done: list[str]
    left: list[str]


def restore_backup(folder: Path, manifest: Manifest, locations: Locations, *, force: bool = False) -> Restored:
    """Restore the backup `folder`, whose manifest was checked, into `locations`.

    Raises UserError, and changes nothing, where a database or an artefact would be replaced without `force`. Servers
    that use the databases must not run.
    """
    check_locations(folder, manifest, locations, force=force)
    return restore_into(folder, manifest, locations)


def check_locations(folder: Path, manifest: Manifest, locations: Locations, *, force: bool) -> None:
    """Raise UserError where the backup does not fit `locations`, or would replace data without `force`."""
    wanted = _wanted(manifest, locations)
    own = {name: folder / manifest.databases()[name] for name in wanted}
    for name, uri in wanted.items():
        check_kind(own[name], uri)
    # A restore that was killed has replaced some databases already.
    moved = {name: _moved(name, manifest, locations) for name in wanted}
    full = [name for name, uri in wanted.items() if not is_empty(uri) and not is_copy(own[name], uri, moved[name])]
    if full and not force:
        raise UserError(f"the databases of {' and '.join(full)} are not empty; --force replaces them")
    if locations.artefacts is None or not (folder / ARTEFACTS).is_dir():
        return
    others = [] if force else _other_artefacts(manifest, locations.artefacts)
    if others:
        raise UserError(
            f"{locations.artefacts}: {len(others)} files differ from the backup, the first is {others[0]}; "
            "--force replaces them"
        )


def restore_into(folder: Path, manifest: Manifest, locations: Locations) -> Restored:
    """Restore artefacts, databases and tags into `locations`, which were checked; no artefact or tag is deleted."""
    done, left = [], []
    forgotten = gate(locations.root)
    if (folder / ARTEFACTS).is_dir() and locations.artefacts is not None:
        hashes = {} if not forgotten else {str(folder / name): digest for name, digest in manifest.files.items()}
        gone = [name for name, digest in hashes.items() if forgotten.reason(None, digest) is not None]
        copy = partial(_copy, without=frozenset(gone))
        shutil.copytree(folder / ARTEFACTS, locations.artefacts, dirs_exist_ok=True, copy_function=copy)
        for name, digest in _artefacts(manifest).items():
            target = locations.artefacts / name
            if str(folder / ARTEFACTS / name) not in gone and not (target.is_file() and sha256(target) == digest):
                raise StageFailed(f"{target}: not as in the backup after it was copied; check the disk, then run again")
        done.append(f"artefacts to {locations.artefacts}")
        left += [f"{Path(name).relative_to(folder)}: {REASON}" for name in gone]
    if (folder / BUNDLE).is_file():
        added = _restore_refs(locations.root, folder / BUNDLE)
        done.append(f"{added} tags and saved runs")
    # Last: what refers to artefacts and tags finds them.
    wanted = _wanted(manifest, locations)
    for name, file in manifest.databases().items():
        if name in wanted:
            load(folder / file, wanted[name], manifest.rows.get(name), _moved(name, manifest, locations))
            done.append(f"database of {name}")
        else:
            left.append(f"database of {name} (--{'ledger' if name == 'mlflow' else name} names its address)")
    if manifest.secret and locations.credentials is None:
        left.append(FILE)
    return Restored(done, left)


def _wanted(manifest: Manifest, locations: Locations) -> dict[str, str]:
    return {name: uri for name, uri in locations.databases().items() if name in manifest.databases()}


def _moved(name: str, manifest: Manifest, locations: Locations) -> Moved:
    """Return where MLflow's artefacts were and where they are restored, if its database `name` must learn that."""
    if name != "mlflow" or manifest.served or manifest.artefacts is None or locations.artefacts is None:
        return None
    places = Path(manifest.artefacts), locations.artefacts.absolute()
    return places if places[0] != places[1] else None


def _artefacts(manifest: Manifest) -> dict[str, str]:
    """Return the sha256 (hex) of each artefact by its path in the artefact folder."""
    prefix = f"{ARTEFACTS}/"
    return {name.removeprefix(prefix): digest for name, digest in manifest.files.items() if name.startswith(prefix)}


def _other_artefacts(manifest: Manifest, target: Path) -> list[str]:
    """Return the files of `target` whose bytes differ from those in the backup."""
    inside = _artefacts(manifest).items()
    return [name for name, digest in inside if (target / name).is_file() and sha256(target / name) != digest]


def _copy(source: str, target: str, *, without: frozenset[str]) -> str:
    if source in without:
        return target
    with atomic_file(Path(target)) as part:
        shutil.copy2(source, part)
    return target


def _restore_refs(root: Path, bundle: Path) -> int:
    """Restore tags and saved runs that are missing, and change no others; return how many."""
    before = set(git(root, "for-each-ref", "--format=%(refname)", *REFS).split())
    listed = git(root, "bundle", "list-heads", str(bundle.resolve())).splitlines()
    missing = [ref for line in listed if (ref := line.split(maxsplit=1)[1]) not in before]
    if missing:
        refs = "\n".join(f"{ref}:{ref}" for ref in missing).encode()
        done = run_git(root, "fetch", "--quiet", "--no-tags", "--stdin", str(bundle.resolve()), data=refs)
        if done.code:
            raise UserError(f"{bundle}: git cannot read it: {done.problem}")
    lost = set(missing) - set(git(root, "for-each-ref", "--format=%(refname)", *REFS).split())
    if lost:
        raise StageFailed(f"{root}: {', '.join(sorted(lost)[:5])} could not be restored")
    return len(missing)
