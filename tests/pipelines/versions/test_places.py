"""The list of folders with faces stays right where its checkout is moved."""

from __future__ import annotations

from pathlib import Path

from pipelines.versions.places import known_copies, note_copy


def test_folders_in_a_checkout_are_found_after_it_was_moved(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "exports" / "one", outside):
        folder.mkdir(parents=True)
        note_copy(root, folder, "export")
    assert {copy.folder for copy in known_copies(root)} == {str(root / "exports" / "one"), str(outside)}
    new = root.rename(tmp_path / "new")
    assert {copy.folder for copy in known_copies(new)} == {str(new / "exports" / "one"), str(outside)}
