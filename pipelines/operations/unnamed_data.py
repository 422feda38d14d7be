"""Data in the DVC cache that nothing names any more."""

from __future__ import annotations

from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.versions.repro import dvc
from pipelines.versions.workspace import runs_folder


def drop_unnamed(root: Path) -> None:
    """Remove from the cache of `root` what no tag, branch, saved run, checkout or workspace names.

    Dataset versions and snapshots of registered models are tags, so their data stays. Raises UserError while a
    workspace is at work: what it has just made may be named nowhere yet.
    """
    from pipelines.operations.retention import busy

    folder = runs_folder(root.resolve())
    living = [path for path in sorted(folder.iterdir()) if (path / ".dvc").is_dir()] if folder.is_dir() else []
    if at_work := [path.name for path in living if busy(path)]:
        raise UserError(f"{', '.join(at_work)}: a process works there; clean data when no run is under way")
    names = ("--all-branches", "--all-tags", "--all-experiments", "--workspace")
    others = ("--projects", *map(str, living)) if living else ()
    done = dvc(root, "gc", "--quiet", "--force", *names, *others, capture=True)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise StageFailed(f"dvc gc in {root}: {lines[-1] if lines else 'no reason given'}")
