"""Inside a hook of one repository, code that runs git still acts on the repository that it was given."""

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
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, while git's variables name another one, which must stay as it is."""
    given, other = repository(tmp_path / "given"), repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    monkeypatch.setenv("GIT_PREFIX", "")
    return given


def version(given: Path) -> None:
    (given / "data" / "faces").mkdir(parents=True)
    (given / "data" / "faces" / "photo.txt").touch()
    assert make_version(given, "data/faces", "one photo").tag == "faces-v1" == current_version(given).tag


def workspace(given: Path) -> None:
    work = create(given, "run-1").path
    assert git(work, "rev-parse", "HEAD") == git(given, "rev-parse", "HEAD")
    (work / "new.dvc").touch()
    save(given, "run-1")
    assert (restore(given, "run-1", given.parent / "restored") / "dvc.lock").is_file()


def lineage(given: Path) -> None:
    (given / "dvc.lock").write_text("stages: {one: {cmd: another}}\n")
    found = lineage_of(given, "one")
    assert (found.git_commit, found.git_dirty) == (git(given, "rev-parse", "HEAD"), True)


def snapshot(given: Path) -> None:
    (given / "code.py").touch()
    assert "code.py" in git(given, "ls-tree", "--name-only", str(take_snapshot(given, "now")))


def project(given: Path) -> None:
    bring_up_to_date(given.parent / "home", given)
    assert git(given.parent / "home", "rev-parse", "HEAD") == git(given, "rev-parse", "HEAD")


@pytest.mark.parametrize("use", [version, workspace, lineage, snapshot, project])
def test_inside_a_hook_the_given_repository_is_used(given: Path, use: Callable[[Path], None]) -> None:
    use(given)
    other = given.parent / "other"
    assert git(other, "log", "--all", "--format=%s") == "other"
    assert git(other, "status", "--porcelain") == git(other, "tag") == ""


def test_the_error_message_of_git_is_reported(given: Path) -> None:
    assert in_repository(given)
    assert not in_repository(given.parent)
    assert not has_commit(given, "refs/tags/none")
    assert run_git(given, "rev-parse", "main").text == git(given, "rev-parse", "HEAD")
    with pytest.raises(StageFailed, match=r"git checkout in .*given: error: pathspec 'none' did not match"):
        git(given, "checkout", "none")
