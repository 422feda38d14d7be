"""`dvc.lock`: what made each stage's result, and whether the files of the checkout are that result."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.chain import FACES, stages
from pipelines.core.errors import StageFailed, UserError
from pipelines.versions.git import git, run_git

LOCK = "dvc.lock"
_EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/.")


def read_lock(root: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of `dvc.lock` by stage; none where there is no such file. UserError where it is damaged."""
    file = root / LOCK
    if not file.is_file():
        return {}
    # DVC writes YAML 1.2, in which `no` is a word; PyYAML would read False.
    from dvc.utils.serialize import ParseError, load_yaml

    try:
        return dict(load_yaml(str(file))["stages"])
    except (ParseError, UnicodeDecodeError, TypeError, KeyError, ValueError):
        raise UserError(f"{file}: damaged: not a lock file of DVC; restore it from git, or `dvc repro`") from None


def lock_entry(root: Path, stage: str) -> dict[str, Any]:
    """Return the stage's entry of `dvc.lock`; raise UserError where the stage has not been run."""
    entry = read_lock(root).get(stage)
    if entry is None:
        raise UserError(f"{LOCK}: no entry for stage {stage}; run `dynamicid repro {stage}` first")
    return entry


def lock_hash(root: Path, stage: str) -> str:
    """Return the sha256 (hex) of the stage's entry, by which ledger and registry know the result.

    It is that of earlier releases, which read YAML 1.1: otherwise a result would be recorded again after an upgrade.
    """
    entry = yaml.safe_load((root / LOCK).read_text(encoding="utf-8"))["stages"][stage]
    return hashlib.sha256(json.dumps(entry, sort_keys=True, default=str).encode()).hexdigest()


def hashes(entry: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return DVC's hashes of an entry by path; `kind` is `outs` or `deps`."""
    return {item["path"]: item["md5"] for item in entry.get(kind, ()) if "md5" in item}


def parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with which the entry's result was made, by section."""
    return dict(entry.get("params", {}).get("params.yaml", {}))


def present_hashes(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return DVC's hashes of files and folders of the checkout by path, without those that are missing.

    DVC remembers the hashes of files that have not changed. Raises UserError where `root` is not a DVC repository.
    """
    present = {path: str(root.resolve() / path) for path in paths if (root / path).exists()}
    if not present:
        return {}
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc_data.hashfile.build import build

    try:
        with Repo(str(root)) as repo:
            cache = repo.cache.local
            built = {
                path: build(cache, place, cache.fs, "md5", ignore=repo.dvcignore, dry_run=True)
                for path, place in present.items()
            }
            return {path: str(made[2].hash_info.value) for path, made in built.items()}
    except NotDvcRepoError:
        raise UserError(f"{root}: not a DVC repository; `dvc init` makes one") from None


def differing(root: Path, expected: Mapping[str, str], *, missing_ok: Iterable[str] = ()) -> list[str]:
    """Return a description of each file or folder of the checkout that has another hash than `expected`."""
    present = present_hashes(root, expected)
    lines = []
    for path, md5 in expected.items():
        if path not in present:
            if path not in missing_ok:
                lines.append(f"{path} is missing ({LOCK}: {md5[:12]})")
        elif present[path] != md5:
            lines.append(f"{path} is {present[path][:12]}, {LOCK} has {md5[:12]}")
    return lines


def dataset_of(root: Path, stage: str) -> str | None:
    """Return DVC's hash of the dataset from which `stage` was made, by way of the stages between.

    Raises StageFailed where an earlier stage has been run again since: its present result is not what `stage` read.
    """
    entries = read_lock(root)
    makers = {path: one.name for one in stages() for path in one.outputs}
    read = hashes(entries[stage], "deps")
    dataset = read.get(FACES)
    for path, md5 in read.items():
        maker = makers.get(path)
        if maker is None:
            continue
        made = hashes(entries.get(maker, {}), "outs").get(path)
        if made != md5:
            state = f"{maker} has made {made[:12]} since" if made else f"there is no entry for {maker}"
            raise StageFailed(
                f"{LOCK}: {stage} was made from {path} {md5[:12]}, {state}: they are not one result; "
                f"`dynamicid repro {stage}` makes it again"
            )
        dataset = dataset_of(root, maker) or dataset
    return dataset


def experiment_of(root: Path) -> str | None:
    """Return the name of the newest DVC experiment with the `dvc.lock` of the checkout.

    None where there is no such experiment, and where that file is the one of the last commit.
    """
    if not (root / LOCK).is_file():
        return None
    listed = run_git(root, "for-each-ref", "--sort=-committerdate", "--format=%(refname)", "refs/exps").text
    # refs/exps/<2 digits>/<38 digits of the commit that it starts from>/<name>; others are DVC's own.
    names = {ref: ref.split("/", 4)[4] for ref in listed.splitlines() if _EXPERIMENT.match(ref)}
    if not names:
        return None
    asked = "".join(f"{ref}:{LOCK}\n" for ref in ("HEAD", *names))
    found = run_git(root, "cat-file", "--batch-check=%(objectname)", data=asked.encode()).text.splitlines()
    present = git(root, "hash-object", LOCK)
    same = [name for name, one in zip(("", *names.values()), found, strict=True) if one == present]
    return same[0] or None if same else None
