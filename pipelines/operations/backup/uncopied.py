"""Find the dataset versions and models whose data is only here: a backup holds their tags, not their data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from pipelines.registry.snapshot import PREFIX
from pipelines.versions.dataset_version import known_versions
from pipelines.versions.dvc import cache_folder, dvc_root, known_pointers, pointed_hash, remotes
from pipelines.versions.git import git, in_repository
from pipelines.versions.git_tags import read_at
from pipelines.versions.lock import LOCK


def describe_uncopied(root: Path) -> str | None:
    """Return which versions no DVC remote of `root` has, and what to do; None where every one is copied.

    Of data that is not in the cache either, as after `forget`, nothing is stated: nobody can push it.
    """
    if dvc_root(root) != root.resolve() or not in_repository(root):
        return None
    cache = cache_folder(root) / "files" / "md5"
    data = {tag: {md5 for md5 in found if (cache / md5[:2] / md5[2:]).is_file()} for tag, found in _named(root).items()}
    known = list(remotes(root)["remote"])
    there, silent = _held_by(root, known, set().union(*data.values()))
    alone = [tag for tag, found in data.items() if found - there]
    if not alone:
        return None
    some = ", ".join(alone[:5]) + (f" and {len(alone) - 5:,} more" if len(alone) > 5 else "")
    if not known:
        return f"the data of {some} is only here: `dvc remote add --default NAME PLACE`, then `dvc push --all-tags`"
    if silent:
        return f"whether a DVC remote has the data of {some} is unknown: {'; '.join(silent)}"
    return f"no DVC remote has all data of {some}: `dvc push --all-tags` copies it"


def _named(root: Path) -> dict[str, set[str]]:
    """Return DVC's hashes of the data of every version of a dataset and every snapshot of a model, by tag."""
    found: dict[str, set[str]] = {}
    for pointer in known_pointers(root):
        tags = known_versions(root, pointer.removesuffix(".dvc"))
        for tag, content in read_at(root, tags, pointer).items() if tags else ():
            found[tag] = {md5} if (md5 := pointed_hash(content)) else set()
    tags = git(root, "for-each-ref", "--format=%(refname:strip=2)", f"refs/tags/{PREFIX}*").split()
    for tag, content in read_at(root, tags, LOCK).items() if tags else ():
        stages = (yaml.safe_load(content) or {}).get("stages", {})
        outs = [out for stage in stages.values() for out in stage.get("outs", ())]
        found[tag] = {out["md5"] for out in outs if "md5" in out}
    return found


def _held_by(root: Path, names: Iterable[str], wanted: set[str]) -> tuple[set[str], list[str]]:
    """Return which of `wanted` a remote has, and a message for each remote that does not answer."""
    from dvc.repo import Repo

    there: set[str] = set()
    silent: list[str] = []
    with Repo(str(root)) as repo:
        for name in names if wanted else ():
            try:
                there |= set(repo.cloud.get_remote_odb(name, "status", "md5").oids_exist(list(wanted - there)))
            except Exception as error:
                silent.append(f"remote {name}: {type(error).__name__}: {' '.join(str(error).split())}")
    return there, silent
