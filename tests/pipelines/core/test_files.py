"""Files and folders are replaced as a whole, and stay unchanged if the work fails."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pipelines.core.files import atomic_file, atomic_folder, sha256, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_file_is_replaced_as_a_whole_and_unchanged_after_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "new" / "text.txt"
    write_atomically(file, "häuser\r\n")
    assert file.read_bytes() == "häuser\r\n".encode()
    assert sha256(file) == hashlib.sha256("häuser\r\n".encode()).hexdigest()
    (file.parent / ".text.txt.part").write_text("left by a killed process")
    with pytest.raises(ZeroDivisionError), atomic_file(file) as part:
        part.write_text(str(1 / 0))
    assert names(file.parent) == ["text.txt"]
    write_atomically(file, b"secret", mode=0o600)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"secret", 0o600)


def test_files_that_several_processes_write_have_separate_parts(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "one") as mine, atomic_file(tmp_path / "one", shared=True) as theirs:
        assert [mine.name, theirs.name] == [".one.part", f".one.{os.getpid()}.part"]
        for part in (mine, theirs):
            part.touch()
    assert names(tmp_path) == ["one"]


def test_a_folder_is_replaced_as_a_whole_and_unchanged_after_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    for left in (".out.part", ".out.old"):
        (folder.parent / left).mkdir(parents=True)
        (folder.parent / left / "half").touch()
    for name in ("first", "second"):
        with atomic_folder(folder, mode=0o700) as part:
            (part / name).touch()
        assert names(folder.parent) == ["out", f"out/{name}"]
        assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ZeroDivisionError), atomic_folder(folder) as part:
        (part / "third").write_text(str(1 / 0))
    assert names(folder.parent) == ["out", "out/second"]


def test_a_folder_whose_replacement_was_killed_between_two_renames_comes_back(tmp_path: Path) -> None:
    old = tmp_path / ".out.old"
    old.mkdir()
    (old / "first").touch()
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "out") as part:
        (part / "second").write_text(str(1 / 0))
    assert names(tmp_path) == ["out", "out/first"]
