"""The list of folders with faces is complete and stays right, whichever checkout writes and wherever it is moved."""

from __future__ import annotations

from pathlib import Path

from pipelines.versions.places import known_copies, note_copy
from pipelines.versions.workspace import create
from tests.processes import commit_all, dvc, git


def test_folders_in_a_checkout_are_found_after_it_was_moved(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "exports" / "one", outside):
        folder.mkdir(parents=True)
        note_copy(root, folder, "export")
    assert {copy.folder for copy in known_copies(root)} == {str(root / "exports" / "one"), str(outside)}
    new = root.rename(tmp_path / "new")
    assert {copy.folder for copy in known_copies(new)} == {str(new / "exports" / "one"), str(outside)}


def test_what_a_runs_workspace_writes_is_in_the_list_of_its_checkout(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    git(tmp_path, "init", "-q", str(root))
    dvc(root, "init", "-q")
    commit_all(root, "start")
    workspace = create(root, "one").path
    note_copy(workspace, outside, "export")
    for checkout in (root, workspace):
        assert [copy.folder for copy in known_copies(checkout) if copy.what == "export"] == [str(outside)]


def test_a_colleagues_clone_keeps_a_list_of_its_own(tmp_path: Path) -> None:
    root, clone, outside = tmp_path / "root", tmp_path / "clone", tmp_path / "outside"
    outside.mkdir()
    git(tmp_path, "init", "-q", str(root))
    dvc(root, "init", "-q")
    commit_all(root, "start")
    git(tmp_path, "clone", "-q", str(root), str(clone))
    note_copy(clone, outside, "export")
    assert known_copies(root) == []
    assert [copy.folder for copy in known_copies(clone)] == [str(outside)]
