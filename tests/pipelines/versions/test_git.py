"""Inside a hook of one repository, everything that runs git still acts on the repository that it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed
from pipelines.operations.stack.project import bring_up_to_date
from pipelines.registry.lineage import lineage_of
from pipelines.registry.snapshot import take_snapshot
from pipelines.versions.dataset_version import current_version, make_version
from pipelines.versions.dvc import dvc
from pipelines.versions.git import git, has_commit, in_repository, run_git
from pipelines.versions.workspace import create, restore, save


def repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for name in ("name", "email"):
        git(folder, "config", f"user.{name}", "t@localhost")
    assert dvc(folder, "init", "-q", capture=True).returncode == 0
    (folder / "dvc.lock").write_text("stages: {one: {cmd: none}}\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", folder.name)
    return folder


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, while git's variables name another one, which must stay as it is."""
    told, other = repository(tmp_path / "told"), repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    monkeypatch.setenv("GIT_PREFIX", "")
    return told


def version(told: Path) -> None:
    (told / "data" / "faces").mkdir(parents=True)
    (told / "data" / "faces" / "photo.txt").touch()
    assert make_version(told, "data/faces", "one photo").tag == "faces-v1" == current_version(told).tag


def workspace(told: Path) -> None:
    work = create(told, "run-1").path
    assert git(work, "rev-parse", "HEAD") == git(told, "rev-parse", "HEAD")
    (work / "new.dvc").touch()
    save(told, "run-1")
    assert (restore(told, "run-1", told.parent / "restored") / "dvc.lock").is_file()


def lineage(told: Path) -> None:
    (told / "dvc.lock").write_text("stages: {one: {cmd: another}}\n")
    found = lineage_of(told, "one")
    assert (found.git_commit, found.git_dirty) == (git(told, "rev-parse", "HEAD"), True)


def snapshot(told: Path) -> None:
    (told / "code.py").touch()
    assert "code.py" in git(told, "ls-tree", "--name-only", str(take_snapshot(told, "now")))


def project(told: Path) -> None:
    bring_up_to_date(told.parent / "home", told)
    assert git(told.parent / "home", "rev-parse", "HEAD") == git(told, "rev-parse", "HEAD")


@pytest.mark.parametrize("use", [version, workspace, lineage, snapshot, project])
def test_inside_a_hook_the_repository_that_is_told_is_used(told: Path, use: Callable[[Path], None]) -> None:
    use(told)
    other = told.parent / "other"
    assert git(other, "log", "--all", "--format=%s") == "other"
    assert git(other, "status", "--porcelain") == git(other, "tag") == ""


def test_what_git_says_of_a_failure_is_told(told: Path) -> None:
    assert in_repository(told)
    assert not in_repository(told.parent)
    assert not has_commit(told, "refs/tags/none")
    assert run_git(told, "rev-parse", "main").text == git(told, "rev-parse", "HEAD")
    with pytest.raises(StageFailed, match=r"git checkout in .*told: error: pathspec 'none' did not match"):
        git(told, "checkout", "none")
