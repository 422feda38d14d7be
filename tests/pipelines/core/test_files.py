"""Files and folders are whole or not there; what was there before stays where the work fails."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pipelines.core.files import atomic_file, atomic_folder, sha256, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_file_is_replaced_whole_and_a_failure_leaves_the_old_one_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "text.txt"
    write_atomically(file, "häuser\r\n")
    assert file.read_bytes() == "häuser\r\n".encode()
    assert sha256(file) == hashlib.sha256("häuser\r\n".encode()).hexdigest()
    (file.parent / ".text.txt.part").write_text("what a killed process left")
    with pytest.raises(ZeroDivisionError), atomic_file(file) as part:
        part.write_text(str(1 / 0))
    assert names(file.parent) == ["text.txt"]
    write_atomically(file, b"secret", mode=0o600)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"secret", 0o600)


def test_files_that_several_processes_write_have_a_part_of_their_own(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "one") as mine, atomic_file(tmp_path / "one", shared=True) as theirs:
        assert [mine.name, theirs.name] == [".one.part", f".one.{os.getpid()}.part"]
        for part in (mine, theirs):
            part.touch()
    assert names(tmp_path) == ["one"]


def test_a_folder_is_replaced_whole_and_a_failure_leaves_the_old_one_alone(tmp_path: Path) -> None:
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
