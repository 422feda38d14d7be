"""Make the workspace of a run: a local clone that shares the DVC cache and the tracking database of its checkout.

Simultaneous runs never touch each other's files. The results of a run are saved as a DVC experiment with the run's name
and pushed to the checkout. `restore` reads them from there without running anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_folder, write_atomically
from pipelines.core.locks import WORKSPACE as READY
from pipelines.versions.dvc import cache_folder, dvc, dvc_problem, use_data_of
from pipelines.versions.forgotten import describe_entries, gate, refuse_forgotten
from pipelines.versions.git import git, run_git
from pipelines.versions.git_tags import DEFAULT_IDENTITY, MACHINES, is_remote, origin_path
from pipelines.versions.places import EXPERIMENTS, RESTORED, RUNS, note_copy, noted

RUNS_VARIABLE = "DYNAMICID_RUNS"
# Folders outside git that a workspace links to: weights of the full-size profile.
_LINKED = ("weights",)
# Characters of a run's name, of which the last are digits of a hash.
_LONGEST, _DIGITS = 80, 12


@dataclass(frozen=True)
class Workspace:
    """The clone of one run."""

    run: str
    home: Path
    path: Path

    def environment(self) -> dict[str, str]:
        """Return the variable that gives commands in the workspace the checkout whose tracking database they use."""
        return {"DYNAMICID_HOME": str(self.home)}


def run_name(run_id: str) -> str:
    """Return a scheduler's run id as a name that git, DVC and file systems accept; two ids never share a name.

    An id that is no such name itself gets a part of its hash at the end. The name of a run is its own name.
    """
    name = _plain_name(run_id)
    if name == run_id:
        return name
    return f"{name[: _LONGEST - _DIGITS - 1]}-{hashlib.sha256(run_id.encode()).hexdigest()[:_DIGITS]}"


def _plain_name(run_id: str) -> str:
    """Return letters and digits of a run id, as its name was in releases that shared it among several ids."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", run_id).strip("-").lower()
    if not name:
        raise UserError(f"run id {run_id!r}: it has no letter or digit to name a workspace by")
    return name[:_LONGEST]


def runs_folder(home: Path) -> Path:
    """Return the folder of the workspaces of `home`."""
    return Path(os.environ.get(RUNS_VARIABLE) or home / ".dynamicid" / "runs")


def workspaces(home: Path) -> list[Path]:
    """Return the folders of all runs of `home`, unfinished ones too."""
    runs = runs_folder(home)
    return sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []


def all_runs_folders(home: Path) -> list[Path]:
    """Return every folder in which `home` ever made workspaces: DYNAMICID_RUNS may differ between shells."""
    return list(dict.fromkeys([runs_folder(home), home / ".dynamicid" / "runs", *noted(home, RUNS)]))


def all_workspaces(home: Path) -> list[Path]:
    """Return the folders of all runs of `home`, wherever they were made, and of the experiments that DVC runs there."""
    runs = {folder.resolve(): folder for folder in all_runs_folders(home) if folder.is_dir()}
    found = [path for folder in runs.values() for path in folder.iterdir() if path.is_dir()]
    for pattern in ("*/.git", "*/*/.git"):  # at work, or left by a killed one
        found += [repository.parent for repository in (home / EXPERIMENTS).glob(pattern)]
    return sorted(found)


def clone_of(home: Path, target: Path) -> None:
    """Make `target` a clone of `home` with the same DVC cache; after a failure `target` does not exist."""
    with atomic_folder(target) as part:
        git(home, "clone", "--quiet", "--local", str(home), str(part.resolve()))
        for name, value in DEFAULT_IDENTITY.items():
            # DVC commits experiments, for which git needs a user name and e-mail.
            if run_git(part, "config", name).code:
                git(part, "config", name, value)
        _attach(part, home)


def _attach(path: Path, home: Path) -> None:
    """Make the clone `path` push to `home` and use its DVC cache, its remotes and its weights."""
    git(path, "remote", "set-url", "origin", str(home))
    cache_folder(home).mkdir(parents=True, exist_ok=True)
    use_data_of(home, path)
    if is_remote(home):
        shared = git(home, "remote", "get-url", MACHINES)
        git(path, "remote", "set-url" if is_remote(path) else "add", MACHINES, shared)
    for name in _LINKED:
        link = path / name
        if link.is_symlink():
            link.unlink()
        if (home / name).exists() and not link.exists():
            link.symlink_to(home / name)


def create(home: Path, run_id: str, *, temporary: bool = False) -> Workspace:
    """Return the workspace of `run_id`; make it only where it is missing, so that a retry finds earlier work.

    Nothing of a `temporary` one is kept: its run is never saved.
    """
    home = home.resolve()
    path = workspace_of(home, run_id)
    name = path.name
    if not (path / READY).is_file():
        if path.exists():
            shutil.rmtree(path)
        if os.environ.get(RUNS_VARIABLE):
            note_copy(home, runs_folder(home), RUNS)
        clone_of(home, path)
        marker = {"run": name, "run_id": run_id, **({"temporary": True} if temporary else {})}
        write_atomically(path / READY, json.dumps(marker))
    elif origin_path(path) != home:
        _attach(path, home)  # the checkout was moved or copied, and the workspace with it
    return Workspace(name, home, path)


def workspace_of(home: Path, run_id: str) -> Path:
    """Return the folder of the workspace of a run, whether or not it exists."""
    return runs_folder(home) / run_name(run_id)


def is_temporary(workspace: Path) -> bool:
    """Whether nothing in a workspace is to be kept."""
    try:
        return bool(json.loads((workspace / READY).read_bytes()).get("temporary"))
    except (OSError, ValueError, AttributeError):
        return False


def save(home: Path, run_id: str) -> str:
    """Save the workspace as a DVC experiment with the run's name and push it to `home`; return the name.

    Raises UserError where the run has no workspace, StageFailed where DVC cannot save it.
    """
    if not (workspace_of(home, run_id) / READY).is_file():
        raise UserError(f"run {run_id}: it has no workspace in {home}; `dynamicid workspace create` makes one")
    work = create(home, run_id)
    # The .dvc file of a dataset that the run added is untracked.
    new = git(work.path, "ls-files", "-z", "--others", "--exclude-standard", "--", "*.dvc").split("\0")
    untracked = [f"--include-untracked={file}" for file in new if file]
    places = ["origin", *([MACHINES] if is_remote(home) else [])]
    for arguments, remedy in (
        (("exp", "save", "--force", "--name", work.run, *untracked), "a run is saved when all its stages have run"),
        *(
            (("exp", "push", "--no-cache", "--force", place, work.run), "run again when it can be reached")
            for place in places
        ),
    ):
        done = dvc(work.path, *arguments, capture=True)
        if done.returncode:
            raise StageFailed(f"dvc {' '.join(arguments)} in {work.path}: {dvc_problem(done)}; {remedy}")
    return work.run


def restore(home: Path, run: str, target: Path) -> Path:
    """Restore code, parameters, data and results of run `run` into the new folder `target`."""
    home = home.resolve()
    if target.exists():
        raise UserError(f"{target}: it exists; give a folder that does not exist")
    note_copy(home, target, RESTORED)
    # Of several machines, another one may have saved the run, and only the remote has all of its data.
    shared = is_remote(home)
    listed = ("ls-remote", MACHINES, "refs/exps/*") if shared else ("for-each-ref", "--format=%(refname)", "refs/exps")
    saved = {word.rsplit("/", 1)[1] for word in git(home, *listed).split() if word.startswith("refs/")}
    place, fill = (MACHINES, "pull") if shared else ("origin", "checkout")
    name = next((one for one in (run_name(run), _plain_name(run)) if one in saved), run_name(run))
    with atomic_folder(target) as part:
        clone_of(home, part)
        for arguments in (("exp", "pull", "--no-cache", place, name), ("exp", "apply", name), (fill,)):
            done = dvc(part, *arguments, capture=True)
            if done.returncode:
                forgotten = _forgotten(home, part)
                raise UserError(
                    f"run {name}: `dvc {' '.join(arguments)}` failed: {dvc_problem(done)}"
                    + (f"; a part of its data was deleted: {forgotten}" if forgotten else "")
                )
        refuse_forgotten(part / "data")
    return target


def _forgotten(home: Path, target: Path) -> str:
    """Describe what was forgotten of the dataset that `target` names; empty where nothing was."""
    from pipelines.versions.dataset_version import current_version

    md5 = current_version(target).md5
    return describe_entries(gate(home).of_dataset(md5)) if md5 else ""
