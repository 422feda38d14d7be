"""Restore a backup: check everything first, and replace existing data only with `force`.

`stack_restore` restores the backup of a stack.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_file, sha256
from pipelines.core.words import counted
from pipelines.operations.backup.backup import REFS, Manifest
from pipelines.operations.backup.contents import ARTEFACTS, BUNDLE
from pipelines.operations.backup.databases import Moved, check_kind, is_copy, is_empty, load
from pipelines.operations.backup.locations import Locations
from pipelines.operations.stack.credentials import FILE
from pipelines.registry.relocation import artefacts_elsewhere
from pipelines.versions.forgotten import REASON, gate
from pipelines.versions.git import git, run_git

# Tags, and runs as DVC saves them (its commit in two parts, and the run's name).
_REF = re.compile(r"refs/tags/.+|refs/exps/[0-9a-f]{2}/[0-9a-f]+/[^/]+")


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
    _check_addresses(folder, manifest, locations)
    _bundled(locations.root, folder / BUNDLE)
    if locations.artefacts is None or not (folder / ARTEFACTS).is_dir():
        return
    others = [] if force else _other_artefacts(manifest, locations.artefacts)
    if others:
        raise UserError(
            f"{locations.artefacts}: not as in the backup: {counted(len(others), 'file')}, the first is {others[0]}; "
            "--force replaces them"
        )


def restore_into(folder: Path, manifest: Manifest, locations: Locations) -> Restored:
    """Restore artefacts, databases and tags into `locations`, which were checked; no artefact or tag is deleted."""
    done, left = [], []
    forgotten = gate(locations.root)
    if (folder / ARTEFACTS).is_dir() and locations.artefacts is not None:
        for name, digest in _artefacts(manifest).items():
            if forgotten.reason(None, digest) is not None:
                left.append(f"{ARTEFACTS}/{name}: {REASON}")
                continue
            target = locations.artefacts / name
            with atomic_file(target) as part:
                shutil.copy2(folder / ARTEFACTS / name, part)
            if sha256(target) != digest:
                raise StageFailed(f"{target}: not as in the backup after it was copied; check the disk, then run again")
        done.append(f"artefacts to {locations.artefacts}")
    if (folder / BUNDLE).is_file():
        added, hidden = _restore_refs(locations.root, folder / BUNDLE)
        done.append(counted(len(added), "tag or saved run", "tags and saved runs"))
        left += [f"{ref} (git would take it for the branch of this name)" for ref in hidden]
    # Last: what refers to artefacts and tags finds them.
    wanted = _wanted(manifest, locations)
    for name, file in manifest.databases().items():
        if name in wanted:
            own = _own_folders(manifest, locations) if name == "mlflow" else None
            load(folder / file, wanted[name], manifest.rows.get(name), _moved(name, manifest, locations), own)
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


def _check_addresses(folder: Path, manifest: Manifest, locations: Locations) -> None:
    """Raise UserError where MLflow's database in the backup names folders of this machine that are not artefacts.

    MLflow serves what it names, and `forget` deletes there.
    """
    database = folder / manifest.databases().get("mlflow", "")
    if database.suffix != ".sqlite":
        return
    own = _own_folders(manifest, locations)
    elsewhere = [path for path in artefacts_elsewhere(database, None) if not any(map(path.is_relative_to, own))]
    if elsewhere:
        raise UserError(
            f"{database}: it names folders outside of {' and '.join(map(str, own)) or 'the backup'}, such as "
            f"{elsewhere[0]}, as no backup does; nothing was restored"
        )


def _own_folders(manifest: Manifest, locations: Locations) -> list[Path]:
    """Return the folders in which MLflow's artefacts may be: where they are restored, and where they were."""
    moved = _moved("mlflow", manifest, locations)
    return [*([] if locations.artefacts is None else [locations.artefacts.absolute()]), *(moved[:1] if moved else ())]


def _bundled(root: Path, bundle: Path) -> list[str]:
    """Return the tags and saved runs in the bundle; raise UserError where it has other references.

    A branch or `refs/replace` would put other commits in the place of the checkout's.
    """
    if not bundle.is_file():
        return []
    listed = run_git(root, "bundle", "list-heads", str(bundle.resolve()))
    if listed.code:
        raise UserError(f"{bundle}: git cannot read it: {listed.problem}")
    refs = [line.split(maxsplit=1)[1] for line in listed.text.splitlines()]
    if strange := [ref for ref in refs if not _REF.fullmatch(ref)]:
        raise UserError(f"{bundle}: {strange[0]} is neither a tag nor a saved run; nothing was restored")
    return refs


def _restore_refs(root: Path, bundle: Path) -> tuple[list[str], list[str]]:
    """Restore tags and saved runs that are missing, and change no others; return those restored and those left.

    A tag with the name of a branch is left: git would take the tag where the branch is meant.
    """
    before = set(git(root, "for-each-ref", "--format=%(refname)", *REFS).split())
    missing = [ref for ref in _bundled(root, bundle) if ref not in before]
    named = {
        name
        for parts, kind in ((2, "heads"), (2, "remotes"), (3, "remotes"))
        for name in git(root, "for-each-ref", f"--format=%(refname:lstrip={parts})", f"refs/{kind}").split()
    }
    hidden = [ref for ref in missing if (name := ref.removeprefix("refs/tags/")) in named or name.endswith("HEAD")]
    missing = [ref for ref in missing if ref not in hidden]
    if missing:
        refs = "\n".join(f"{ref}:{ref}" for ref in missing).encode()
        done = run_git(root, "fetch", "--quiet", "--no-tags", "--stdin", str(bundle.resolve()), data=refs)
        if done.code:
            raise UserError(f"{bundle}: git cannot read it: {done.problem}")
    lost = set(missing) - set(git(root, "for-each-ref", "--format=%(refname)", *REFS).split())
    if lost:
        raise StageFailed(f"{root}: {', '.join(sorted(lost)[:5])} could not be restored")
    return missing, hidden
