"""Hand a run over between machines: its files through a git repository that all reach, its data by the DVC remote.

A checkout is that of one of several machines where it has the git remote `machines`. After each task of a run, what
git does not ignore in the workspace (parameters, `dvc.lock`, pointers to data) becomes a commit of the reference
`refs/dynamicid/runs/<run>` there; its parent is the commit whose code the run has. Before each task, the workspace of
the machine at hand takes that state. A machine that was thought dead cannot hand over what another has taken over.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import write_atomically
from pipelines.versions.dvc import bring_data, default_remote, known_pointers, push_data
from pipelines.versions.forgotten import refuse_forgotten
from pipelines.versions.git import git, run_git
from pipelines.versions.git_tags import MACHINES, commit_files, is_remote
from pipelines.versions.lock import LOCK, read_lock
from pipelines.versions.workspace import READY, Workspace, create, run_name, runs_folder, workspaces

ALL = "."
# The commit of the state that a workspace has taken or handed over.
_STATE = Path(".dynamicid") / "handed_over"
# Files that git ignores, and a run needs on every machine. The first is always there, so no state is an empty commit.
_BESIDE = (READY, ".dynamicid/published.json")
_TRACKING = "MLFLOW_TRACKING_URI"
# References: the state of each run, and marks of runs that were removed.
_RUNS, _REMOVED = "refs/dynamicid/runs", "refs/dynamicid/removed"


def enter(home: Path, run_id: str) -> Workspace:
    """Return the workspace of a run in its present state, on whichever machine that was made.

    Raises UserError where the run has none: it was removed, or its task `workspace` has not run.
    """
    home, name = home.resolve(), run_name(run_id)
    path = runs_folder(home) / name
    shared = is_remote(home)
    if not shared and not (path / READY).is_file():
        raise UserError(
            f"{path}: the workspace of this run is gone, as after `dynamicid clean`; clear the task `workspace` with "
            "Downstream"
        )
    if shared:
        _check(home)
    work = create(home, run_id)
    if shared and not _take(work):
        raise UserError(f"{name}: no machine has begun this run; clear the task `workspace` with Downstream")
    return work


def begin(home: Path, run_id: str, *, temporary: bool = False) -> Workspace:
    """Return the workspace of a run; the first machine to make it settles which commit all others work with."""
    if is_remote(home):
        _check(home)
    work = create(home, run_id, temporary=temporary)
    if is_remote(home) and not _take(work):
        hand_over(work)
    return work


def bring(work: Workspace, paths: Sequence[str]) -> None:
    """Check out outputs of stages and datasets, pulled from the remote where they are not in the cache of this machine.

    A dot stands for all of them. Does nothing on one machine, where they are in place. Raises StageFailed where one
    cannot be brought.
    """
    if not paths or not is_remote(work.home):
        return
    pointers = set(known_pointers(work.path))
    named = [f"{path}.dvc" if f"{path}.dvc" in pointers else path for path in paths]
    if problem := bring_data(work.path, *([] if ALL in paths else named), force=True):
        raise StageFailed(f"{work.run}: {problem}; run again when the DVC remote has it")


def hand_over(work: Workspace, keep: Sequence[str] = ()) -> None:
    """Push what a task has made: data that `dvc.lock` or a pointer names anew, folders `keep`, then the state.

    Does nothing on one machine. Raises StageFailed where a remote cannot be reached, or another machine has handed the
    run over since this one took it.
    """
    if not is_remote(work.home):
        return
    from pipelines.versions.dataset_version import track

    for folder in keep:
        refuse_forgotten(work.path / folder, content=True)
        track(work.path, folder)
    before = _state(work)
    if made := _made(work.path, before):
        push_data(work.path, *made)
    changed = git(work.path, "ls-files", "-z", "--modified", "--others", "--exclude-standard").split("\0")
    names = [name for name in (*changed, *_BESIDE) if name and (work.path / name).is_file()]
    files = {name: (work.path / name).read_bytes() for name in names}
    commit = commit_files(work.path, files, f"State of {work.run}")
    reference = _reference(work)
    lease = f"--force-with-lease={reference}:{before or ''}"
    done = run_git(work.path, "push", "--quiet", lease, MACHINES, f"{commit}:{reference}")
    if done.code:
        why = "another machine has taken it over" if "stale info" in done.error else done.problem
        raise StageFailed(f"{work.run}: its state cannot be handed over: {why}")
    write_atomically(work.path / _STATE, commit)


def end(home: Path, run_id: str) -> None:
    """Note that the workspace of a run was removed, and drop the run's state, where another machine may have a copy.

    Does nothing on one machine. Raises StageFailed where the repository that machines share cannot be reached.
    """
    if not is_remote(home):
        return
    name = run_name(run_id)
    if not git(home, "ls-remote", MACHINES, f"{_RUNS}/{name}"):
        return
    mark = git(home, "hash-object", "-w", "--stdin", data=b"")  # of nothing: only the name counts
    git(home, "push", "--quiet", "--atomic", MACHINES, f"{mark}:{_REMOVED}/{name}", f":{_RUNS}/{name}")


def removed_elsewhere(home: Path) -> list[Path]:
    """Return the workspaces on this machine of runs that any machine has removed, and none has begun again."""
    if not is_remote(home):
        return []
    listed = {line.split("\t")[-1] for line in git(home, "ls-remote", MACHINES, "refs/dynamicid/*").splitlines()}
    gone = {name.removeprefix(f"{_REMOVED}/") for name in listed if name.startswith(_REMOVED)}
    return [path for path in workspaces(home) if path.name in gone and f"{_RUNS}/{path.name}" not in listed]


def _take(work: Workspace) -> bool:
    """Bring the workspace to the state that was handed over last; return False where there is none."""
    reference = _reference(work)
    listed = git(work.path, "ls-remote", MACHINES, reference).split()
    if not listed:
        return False
    if (commit := listed[0]) != _state(work):
        git(work.path, "fetch", "--quiet", "--no-tags", MACHINES, f"+{reference}:{reference}")
        git(work.path, "reset", "--quiet", "--hard", f"{commit}^")
        git(work.path, "restore", f"--source={commit}", "--worktree", "--", ".")
        write_atomically(work.path / _STATE, commit)
    return True


def _made(root: Path, before: str | None) -> list[str]:
    """Return the stages and pointers that name other data than in the state `before`, or than the code's commit."""
    old = before or "HEAD"
    lock: dict[str, object] = {}
    with suppress(yaml.YAMLError, KeyError, TypeError):
        lock = yaml.safe_load(git(root, "show", f"{old}:{LOCK}"))["stages"] if _has(root, old, LOCK) else {}
    stages = [name for name, entry in read_lock(root).items() if lock.get(name) != entry]
    pointers = [
        name
        for name in known_pointers(root)
        if not _has(root, old, name) or git(root, "show", f"{old}:{name}") != (root / name).read_text().strip()
    ]
    return [*stages, *pointers]


def _has(root: Path, commit: str, name: str) -> bool:
    return run_git(root, "cat-file", "-e", f"{commit}:{name}").code == 0


def _state(work: Workspace) -> str | None:
    file = work.path / _STATE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _reference(work: Workspace) -> str:
    return f"{_RUNS}/{work.run}"


def _check(home: Path) -> None:
    """Raise UserError where machines that share a repository would not share data or records."""
    if default_remote(home) is None:
        raise UserError(f"{home}: several machines (git remote {MACHINES}) need a DVC remote; `dvc remote add -d`")
    if not os.environ.get(_TRACKING):
        raise UserError(f"{_TRACKING}: several machines (git remote {MACHINES}) need one MLflow server; name it")
