"""What may be cleaned up: run workspaces, checkpoints and caches that can be made again and are old enough.

Models and the ledger are never among it, data only where nothing names it any more. What a process works with is left
alone, however old it is.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import is_held
from pipelines.core.sections.operations import Keeping
from pipelines.versions.dvc import dvc, dvc_problem
from pipelines.versions.git import git
from pipelines.versions.workspace import workspaces

_DAY = 86400.0
STATE = Path(".dynamicid")
_CACHES = ("cache", "preprocess", "curate")


@dataclass(frozen=True)
class Item:
    """One thing that was looked at: its kind, how old (days) and big (bytes) it is, and why it stays, if it does."""

    kind: str  # workspace, checkpoint or cache
    path: Path
    days: float
    size: int
    kept: str | None

    def plain(self) -> dict[str, object]:
        """Return the item for JSON."""
        shown = {"kind": self.kind, "path": str(self.path), "days": round(self.days, 2)}
        return {**shown, "bytes": self.size, "kept": self.kept}


def survey(root: Path, params: Keeping, *, unsaved: bool = False, now: float | None = None) -> list[Item]:
    """Return everything that could be cleaned up in the checkout `root`, with what stays and why.

    `unsaved` gives up workspaces too whose run was never saved as an experiment. Checkpoints and caches inside a
    workspace go with it.
    """
    root = root.resolve()
    moment = time.time() if now is None else now
    return [
        *_workspaces(root, params.workspaces_days, unsaved, moment),
        *_checkpoints(root, params.checkpoints_days, moment),
        *_caches(root, params.caches_days, moment),
    ]


def remove(items: Iterable[Item]) -> tuple[int, int]:
    """Remove the items that do not stay; return how many went and how many bytes they held."""
    count = size = 0
    for item in items:
        if item.kept is not None:
            continue
        if item.path.is_dir():
            # Renamed first: a process killed here leaves no half workspace that a retry would take for a whole one.
            gone = item.path.with_name(f".{item.path.name}.gone")
            shutil.rmtree(gone, ignore_errors=True)
            item.path.rename(gone)
            shutil.rmtree(gone)
        else:
            item.path.unlink(missing_ok=True)
        count, size = count + 1, size + item.size
    return count, size


def _workspaces(root: Path, days: float, unsaved: bool, now: float) -> Iterator[Item]:
    saved = {ref.rsplit("/", 1)[-1] for ref in git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()}
    for path in workspaces(root):
        age, size = _measure(path, now)
        kept = None
        if path.name.startswith(".") and path.name.endswith(".gone"):
            pass  # what a killed clean-up left
        elif age < days:
            kept = f"used {age:.1f} days ago, kept for {days:g}"
        elif busy(path):
            kept = "a process works in it"
        elif path.name not in saved and not path.name.startswith(".") and not unsaved:
            kept = "its run was not saved; --unsaved gives it up"
        yield Item("workspace", path, age, size, kept)


def _checkpoints(root: Path, days: float, now: float) -> Iterator[Item]:
    for path in sorted((root / STATE / "resume").glob("*/*/")):
        age, size = _measure(path, now)
        kept = None
        if age < days:
            kept = f"written {age:.1f} days ago, kept for {days:g}"
        elif is_held(path.with_suffix(".lock")):
            kept = "a process is training it"
        yield Item("checkpoint", path, age, size, kept)


def _caches(root: Path, days: float, now: float) -> Iterator[Item]:
    for name in _CACHES:
        for path in sorted((root / STATE / name).rglob("*")):
            if path.is_symlink() or not path.is_file() or path.suffix == ".lock":
                continue
            found = path.stat()
            age = (now - max(found.st_mtime, found.st_atime)) / _DAY
            kept = f"used {age:.1f} days ago, kept for {days:g}" if age < days else None
            yield Item("cache", path, age, found.st_size, kept)


def _measure(folder: Path, now: float) -> tuple[float, int]:
    """Return the days since anything in `folder` was written, and its bytes; hard links to the cache do not count."""
    latest, size = folder.stat().st_mtime, 0
    for parent, names, files in os.walk(folder):
        names[:] = [name for name in names if name != ".git"]
        for name in files:
            found = (Path(parent) / name).lstat()
            # A hard link has the time of the cached file, which may be older or newer than the run.
            if found.st_nlink == 1:
                latest, size = max(latest, found.st_mtime), size + found.st_size
    return max(0.0, (now - latest) / _DAY), size


def busy(workspace: Path) -> bool:
    """Whether DVC or a training holds a lock in a workspace."""
    locks = [workspace / ".dvc" / "tmp" / "lock", *(workspace / STATE / "resume").glob("*/*.lock")]
    running = workspace / ".dvc" / "tmp" / "rwlock"
    stages = running.is_file() and running.read_text(encoding="utf-8").strip() not in ("", "{}")
    return stages or any(is_held(lock) for lock in locks)


def drop_unnamed(root: Path) -> None:
    """Remove from the DVC cache of `root` what no tag, branch, saved run, checkout or workspace names.

    Dataset versions and snapshots of registered models are tags, so their data stays. Raises UserError while a
    workspace is at work: what it has just made may be named nowhere yet.
    """
    living = [path for path in workspaces(root.resolve()) if (path / ".dvc").is_dir()]
    if at_work := [path.name for path in living if busy(path)]:
        raise UserError(f"{', '.join(at_work)}: a process works there; clean data when no run is under way")
    names = ("--all-branches", "--all-tags", "--all-experiments", "--workspace")
    others = ("--projects", *map(str, living)) if living else ()
    done = dvc(root, "gc", "--quiet", "--force", *names, *others, capture=True)
    if done.returncode:
        raise StageFailed(f"dvc gc in {root}: {dvc_problem(done)}")
