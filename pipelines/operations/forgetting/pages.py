"""Find cached HTML reports that may show a subject: those of evaluations for which the person was held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.chain import PROCESSED
from pipelines.operations.forgetting.stores import FoundObjects
from pipelines.versions.git import git, in_repository
from pipelines.versions.git_tags import read_at

TEST = "test"


def may_show(splits: frozenset[str]) -> bool:
    """Whether reports may show a person with photos in `splits`: held out, or of unknown split."""
    return not splits or TEST in splits


def folders_shown(found: FoundObjects) -> set[str]:
    """Return the folder objects of which an evaluation may show the subject of `found`: held out in them."""
    return found.folders_with({oid for oid, rows in found.tables.items() if TEST in rows.splits})


def pages_showing(root: Path, cache: Path, found: FoundObjects, shown: set[str]) -> set[str]:
    """Return the HTML objects that may show a subject who is held out in the folders `shown`.

    A page is left out only where the dataset of every evaluation that made it is known, and the person was not held out
    in any of them.
    """
    made_of: dict[str, set[str]] = defaultdict(set)
    for lock in (*_locks(root), *_run_cache(cache)):
        deps = {item["path"]: item.get("md5") for item in lock.get("deps") or []}
        for out in lock.get("outs") or []:
            made_of[out.get("md5") or ""].add(deps.get(PROCESSED) or "")
    known = set(found.folders) - shown
    return {page for page in found.pages if not made_of.get(page) or not made_of[page] <= known}


def _locks(root: Path) -> Iterator[dict[str, Any]]:
    """Yield the stages of every dvc.lock, in the working tree, all commits and all saved runs."""
    texts = [(root / "dvc.lock").read_bytes()] if (root / "dvc.lock").is_file() else []
    if in_repository(root):
        commits = git(root, "rev-list", "--all", "--", "dvc.lock").splitlines()
        texts += read_at(root, commits, "dvc.lock").values()
    for text in dict.fromkeys(texts):
        yield from (yaml.safe_load(text) or {}).get("stages", {}).values()


def _run_cache(cache: Path) -> Iterator[dict[str, Any]]:
    for file in sorted((cache / "runs").rglob("*")):
        if file.is_file():
            entry = yaml.safe_load(file.read_text(encoding="utf-8"))
            if isinstance(entry, dict):
                yield entry
