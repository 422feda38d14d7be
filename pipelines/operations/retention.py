"""Clean up old run workspaces, checkpoints and caches, all of which can be made again.

Models and MLflow's records are never removed. Data is removed only when nothing refers to it any more. Whatever a
process is using stays, however old it is.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.formats.folders import STATE_MARKER
from pipelines.core.locks import IN_USE, WORKSPACE, hold, is_held
from pipelines.core.sections.operations import Keeping
from pipelines.registry.relocation import unfinished_uploads
from pipelines.versions.dvc import dvc, dvc_problem, local_stores
from pipelines.versions.git import git
from pipelines.versions.handover import removed_elsewhere
from pipelines.versions.interrupted import unfinished_objects
from pipelines.versions.state import (
    CACHE,
    COMPARE,
    CURATE,
    DRIFT,
    EVALUATION,
    LOCK,
    PREPROCESS,
    RESUME,
    STATE,
    shared_state,
)
from pipelines.versions.workspace import is_temporary, workspaces

_DAY = 86400.0
_BUSY = "a process is using it"


@dataclass(frozen=True)
class Item:
    """A folder or file: its kind, days since its last use, bytes, and why it is kept (None: it can be removed).

    `lock`: held by whoever removes it; nobody who uses it may hold it then.
    """

    kind: str  # workspace, checkpoint, cache or unfinished object
    path: Path
    days: float
    size: int
    kept: str | None
    lock: Path | None = None

    def plain(self) -> dict[str, object]:
        """Return the item for JSON."""
        shown = {"kind": self.kind, "path": str(self.path), "days": round(self.days, 2)}
        return {**shown, "bytes": self.size, "kept": self.kept}


def survey(root: Path, params: Keeping, *, unsaved: bool = False, now: float | None = None) -> list[Item]:
    """Return all workspaces, checkpoints, cached files and unfinished objects of the checkout `root`.

    `kept` says which ones stay. `unsaved` also allows the removal of workspaces whose run was never saved as an
    experiment. Checkpoints and caches inside a workspace are removed with it. `now` is in seconds since the epoch.
    """
    root = root.resolve()
    now = time.time() if now is None else now
    return [
        *_workspaces(root, params.workspaces_days, unsaved, now),
        *_checkpoints(root, params.checkpoints_days, now),
        *_caches(shared_state(root), params, now),
        *_unfinished(root, now),
    ]


def remove(items: Iterable[Item]) -> tuple[int, int]:
    """Remove the items that are not kept; return their number and their bytes.

    What a process began to use meanwhile stays.
    """
    count = size = 0
    for item in items:
        if item.kept is not None:
            continue
        with suppress(_InUseError), hold(item.lock, _InUseError()) if item.lock else nullcontext():
            _remove(item.path)
            count, size = count + 1, size + item.size
    return count, size


class _InUseError(Exception):
    """A process uses what was to be removed."""


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    # Renamed first: if this process is killed here, a retry does not use a partly removed folder.
    gone = path.with_name(f".{path.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone)


def _workspaces(root: Path, days: float, unsaved: bool, now: float) -> Iterator[Item]:
    saved = {ref.rsplit("/", 1)[-1] for ref in git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()}
    removed = _removed_elsewhere(root)
    for path in workspaces(root):
        item = workspace_item(path, now)
        if path.name.startswith(".") and path.name.endswith(".gone"):
            yield replace(item, kept=None)  # left by a clean-up that was killed
        elif path in removed:
            yield item
        elif item.days < days:
            yield replace(item, kept=f"used {item.days:.1f} days ago, kept for {days:g}")
        elif item.kept or unsaved or path.name in saved or path.name.startswith(".") or is_temporary(path):
            yield item
        else:
            yield replace(item, kept="its run was not saved; --unsaved removes it")


def _removed_elsewhere(root: Path) -> list[Path]:
    try:
        return removed_elsewhere(root)
    except StageFailed as error:
        print(f"{error}; workspaces of runs that other machines have removed stay as others do", file=sys.stderr)
        return []


def workspace_item(path: Path, now: float | None = None) -> Item:
    """Return a workspace as what is removed unless a process is using it; `now` is in seconds since the epoch."""
    days, size = _measure(path, time.time() if now is None else now)
    lock = path / IN_USE if (path / WORKSPACE).is_file() else None
    return Item("workspace", path, days, size, _BUSY if is_busy(path) else None, lock)


def _checkpoints(root: Path, days: float, now: float) -> Iterator[Item]:
    for path in sorted((shared_state(root) / RESUME).glob("*/*/")):
        age, size = _measure(path, now)
        kept = None
        if age < days:
            kept = f"written {age:.1f} days ago, kept for {days:g}"
        elif is_held(path.with_suffix(".lock")):
            kept = "a process is training it"
        yield Item("checkpoint", path, age, size, kept, path.with_suffix(".lock"))


def _caches(state: Path, params: Keeping, now: float) -> list[Item]:
    """Return the entries of the caches in `state`; those used last are kept, up to the limits of age and size."""
    items = [item for name in (CACHE, PREPROCESS, CURATE, EVALUATION, DRIFT) for item in _entries(state / name, now)]
    items += _cells(state / COMPARE, now)
    busy = {item.lock for item in items if item.lock is not None and is_held(item.lock)}
    most = float("inf") if params.caches_gb is None else params.caches_gb * 1e9
    reasons: dict[Path, str | None] = {}
    held = 0
    for item in sorted(items, key=lambda item: item.days):
        held += item.size
        if item.days < params.caches_days and held <= most:
            reasons[item.path] = f"used {item.days:.1f} days ago, kept for {params.caches_days:g}"
        else:
            reasons[item.path] = _BUSY if item.lock in busy else None
            held -= item.size if reasons[item.path] is None else 0
    return [replace(item, kept=reasons[item.path]) for item in items]


def _cells(folder: Path, now: float) -> Iterator[Item]:
    """Yield the trainings and evaluations of comparisons, each of which is removed as a whole."""
    for path in sorted(folder.glob("*/*/")):
        parts = [file.stat() for file in path.rglob("*") if file.is_file()]
        used = max((max(part.st_mtime, part.st_atime) for part in parts), default=path.stat().st_mtime)
        yield Item("cache", path, (now - used) / _DAY, sum(part.st_size for part in parts), None, folder / LOCK)


def _entries(folder: Path, now: float) -> Iterator[Item]:
    """Yield what is removed as one of a folder of caches: a store of records, or a file."""
    stores = {file.parent for file in folder.rglob("store.json")}
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    others = {file for file in files if file.parent not in stores and file.name not in (LOCK, STATE_MARKER)}
    for path in sorted(stores | others):
        parts = [file.stat() for file in ([path] if path in others else path.iterdir())]
        used = max(max(part.st_mtime, part.st_atime) for part in parts)
        yield Item("cache", path, (now - used) / _DAY, sum(part.st_size for part in parts), None, folder / LOCK)


def _unfinished(root: Path, now: float) -> Iterator[Item]:
    """Yield what killed transfers left: of DVC in the cache and in remotes that are folders, of MLflow in artefacts."""
    stores = local_stores(root) if (root / ".dvc" / "config").is_file() else []
    for path in (*unfinished_objects(stores), *unfinished_uploads(root)):
        info = path.stat()
        age = (now - info.st_mtime) / _DAY
        kept = "may still be written, for a day" if age < 1 else None
        yield Item("unfinished", path, age, info.st_size, kept)


def _measure(folder: Path, now: float) -> tuple[float, int]:
    """Return the days since the last write in `folder`, and its bytes, not counting hard links to the cache."""
    latest, size = folder.stat().st_mtime, 0
    for parent, names, files in os.walk(folder):
        names[:] = [name for name in names if name != ".git"]
        for name in files:
            info = (Path(parent) / name).lstat()
            # A hard link has the time of the cached file, which may be older or newer than the run.
            if info.st_nlink == 1:
                latest, size = max(latest, info.st_mtime), size + info.st_size
    return max(0.0, (now - latest) / _DAY), size


def is_busy(workspace: Path) -> bool:
    """Whether a command, DVC or a training holds a lock in a workspace."""
    locks = [workspace / IN_USE, workspace / ".dvc" / "tmp" / "lock", *(workspace / STATE / RESUME).glob("*/*.lock")]
    running = workspace / ".dvc" / "tmp" / "rwlock"
    stages = running.is_file() and running.read_text(encoding="utf-8").strip() not in ("", "{}")
    return stages or any(is_held(lock) for lock in locks)


def remove_unreferenced_data(root: Path) -> None:
    """Remove data from the DVC cache of `root` that no tag, branch, saved run, checkout or workspace refers to.

    Dataset versions and snapshots of registered models are tags, so their data stays. Raises UserError while a run is
    at work in a workspace, because nothing refers to its newest outputs yet.
    """
    in_use = [path for path in workspaces(root.resolve()) if (path / ".dvc").is_dir()]
    if busy := [path.name for path in in_use if is_busy(path)]:
        raise UserError(f"{', '.join(busy)}: a process is at work there; clean data when no run is under way")
    references = ("--all-branches", "--all-tags", "--all-experiments", "--workspace")
    projects = ("--projects", *map(str, in_use)) if in_use else ()
    done = dvc(root, "gc", "--quiet", "--force", *references, *projects, capture=True)
    if done.returncode:
        raise StageFailed(f"dvc gc in {root}: {dvc_problem(done)}")
