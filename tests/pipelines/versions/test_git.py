"""Inside a hook of one repository, code that runs git still acts on the repository that it was given."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.odd_cases import UNWANTED_GIT
from pipelines.core.errors import StageFailed, UserError
from pipelines.operations.stack.project import bring_up_to_date
from pipelines.registry.lineage import lineage_of
from pipelines.registry.snapshot import take_snapshot
from pipelines.versions.dataset_version import current_version, make_version
from pipelines.versions.dvc import dvc
from pipelines.versions.git import git, has_commit, in_repository, run_git
from pipelines.versions.git_tags import local_origin
from pipelines.versions.workspace import create, restore, save
from tests.processes import PROJECT, run

IGNORED = (PROJECT / ".gitignore").read_text().splitlines(keepends=True)


def repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for name in ("name", "email"):
        git(folder, "config", f"user.{name}", "t@localhost")
    assert dvc(folder, "init", "-q", capture=True).returncode == 0
    # As in the checkout of the project; DVC refuses a `.dvc` file that a person's own list ignores.
    (folder / ".gitignore").write_text("".join(line for line in IGNORED if line.startswith("!")))
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


@pytest.fixture
def unwanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose settings of git sign, call hooks that fail, ignore data, rename origin and forbid local clones."""
    home = tmp_path / "home"
    for folder in (home / "hooks", home / "template" / "hooks"):
        folder.mkdir(parents=True)
        for name in ("pre-commit", "commit-msg", "post-checkout", "pre-push", "reference-transaction"):
            (folder / name).write_text("#!/bin/sh\nexit 1\n")
            (folder / name).chmod(0o755)
    (home / "ignored").write_text("*.dvc\ndata\n*.lock\n")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    made = repository(tmp_path / "made 名前")
    for key, value in UNWANTED_GIT.items():
        run("git", "config", "--global", key, value.format(place=home))
    return made


@pytest.mark.parametrize("step", [version, workspace, lineage])
def test_a_persons_settings_of_git_change_nothing(unwanted: Path, step: Callable[[Path], None]) -> None:
    step(unwanted)


def test_names_of_files_and_tags_are_as_they_are(unwanted: Path) -> None:
    (unwanted / "größe.dvc").touch()
    work = create(unwanted, "run-1").path
    (work / "größe.dvc").touch()
    save(unwanted, "run-1")
    assert (restore(unwanted, "run-1", unwanted.parent / "restored") / "größe.dvc").is_file()


def test_somebody_elses_repository_is_refused_with_what_to_do(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setattr("pipelines.versions.git.git_environment", lambda: dict(os.environ))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"):
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match=r"belongs to another user.*git config --global --add safe\.directory /"):
        in_repository(given)


def test_a_clone_of_an_address_with_percent_signs_finds_its_origin(tmp_path: Path) -> None:
    origin = repository(tmp_path / "C# 50%")
    git(tmp_path, "clone", "-q", origin.as_uri(), "clone")
    assert local_origin(tmp_path / "clone") == origin


def test_a_git_that_only_reads_does_not_write_the_index(given: Path) -> None:
    """Killed while it did, it would leave a lock with which every later commit ends."""
    file = given / "kept"
    file.write_text("a")
    run_git(given, "add", "-A")
    index = given / ".git" / "index"
    before = index.read_bytes()
    os.utime(file, (1, 1))
    assert run_git(given, "status", "--porcelain", "--untracked-files=no").text == "A  kept"
    assert index.read_bytes() == before
