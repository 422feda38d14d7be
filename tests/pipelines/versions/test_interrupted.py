"""What a killed DVC or git left half written or locked stops no later command."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import hold
from pipelines.versions import git as git_module
from pipelines.versions.dataset_version import current_version, make_version
from pipelines.versions.dvc import bring_data, push_data, repro_stage
from pipelines.versions.git import run_git
from pipelines.versions.interrupted import mend_interrupted
from tests.processes import commit_all, dvc, git

STAGE = "stages:\n  one:\n    cmd: python -c \"open('out', 'w').write('1')\"\n    deps: [given]\n    outs: [out]\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a dataset version and a stage that was run."""
    root = tmp_path / "home"
    (root / "data" / "faces").mkdir(parents=True)
    (root / "data" / "faces" / "one.txt").write_text("one")
    (root / "given").write_text("1")
    git(root, "init", "-q", "-b", "main")
    dvc(root, "init", "-q")
    (root / "dvc.yaml").write_text(STAGE)
    (root / ".gitignore").write_text("/data/faces\n/data/.gitignore\n/out\n")
    commit_all(root, "start")
    assert make_version(root, "data/faces", "one").tag == "faces-v1"
    repro_stage(root, "one")
    return root


def add_photo(root: Path) -> None:
    (root / "data" / "faces" / "two.txt").write_text("two")


@pytest.mark.parametrize("content", ["", '{"write": {"/x": {"pid": 1, "cm'])
def test_a_half_written_list_of_locks_is_removed(root: Path, content: str) -> None:
    (root / ".dvc" / "tmp" / "rwlock").write_text(content)
    add_photo(root)
    assert make_version(root, "data/faces", "two").tag == "faces-v2"


@pytest.mark.parametrize("cut", [0, 20])
def test_a_half_written_pointer_is_written_again_from_the_data(
    root: Path, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    pointer = root / "data" / "faces.dvc"
    whole = pointer.read_bytes()
    pointer.write_bytes(whole[:cut])
    assert current_version(root).md5 is None
    assert "half written" in capsys.readouterr().err
    assert make_version(root, "data/faces", "one again").tag == "faces-v1"
    assert pointer.read_bytes() == whole


@pytest.mark.parametrize("kept", [0, -100, -1])
def test_a_half_written_lock_file_is_as_before_the_command(root: Path, kept: int) -> None:
    lock = root / "dvc.lock"
    (root / "given").write_text("2")
    repro_stage(root, "one")
    whole = lock.read_bytes()
    lock.write_bytes(whole[:kept])
    repro_stage(root, "one")
    assert lock.read_bytes() == whole


@pytest.mark.parametrize("name", ["dvc.lock", "data/faces.dvc"])
def test_a_merge_conflict_is_left_to_the_person_who_merges(root: Path, name: str) -> None:
    commit_all(root, "run")
    git(root, "checkout", "-q", "-b", "colleague")
    (root / "given").write_text("2")
    repro_stage(root, "one")
    add_photo(root)
    make_version(root, "data/faces", "two")
    commit_all(root, "theirs")
    git(root, "checkout", "-q", "main")
    (root / "given").write_text("3")
    repro_stage(root, "one")
    (root / "data" / "faces" / "three.txt").write_text("three")
    make_version(root, "data/faces", "three")
    commit_all(root, "ours")
    assert run_git(root, "merge", "-q", "colleague").code != 0
    for other in {"given", "dvc.lock", "data/faces.dvc"} - {name}:
        git(root, "checkout", "--ours", "--", other)
    text = (root / name).read_bytes()
    assert b"<<<<<<<" in text
    if name == "data/faces.dvc":
        with pytest.raises(UserError, match=rf"{name}: marks of a merge conflict in it"):
            current_version(root)
    with pytest.raises(UserError, match=rf"{name}: marks of a merge conflict in it"):
        repro_stage(root, "one")
    assert (root / name).read_bytes() == text


def test_a_list_of_a_folder_that_is_empty_in_a_remote_is_sent_again(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remote = tmp_path / "remote"
    dvc(root, "remote", "add", "-d", "store", str(remote))
    assert push_data(root) == "store"
    (listed,) = remote.glob("files/md5/*/*.dir")
    whole = listed.read_bytes()
    listed.unlink()
    listed.touch()
    for file in remote.glob("files/md5/*/[!.]*"):
        if file != listed and file.read_bytes() == b"one":
            file.unlink()  # what the list names was not all sent
    assert push_data(root) == "store"
    assert listed.read_bytes() == whole
    assert f"{listed}: a killed DVC left it empty; removed" in capsys.readouterr().err
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(root / "data" / "faces")
    assert bring_data(root, "data/faces.dvc") is None
    assert (root / "data" / "faces" / "one.txt").read_text() == "one"


def test_an_empty_list_in_a_remote_is_not_fetched_but_named_as_missing(root: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    dvc(root, "remote", "add", "-d", "store", str(remote))
    push_data(root)
    (listed,) = remote.glob("files/md5/*/*.dir")
    listed.unlink()
    listed.touch()
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(root / "data" / "faces")
    problem = bring_data(root, "data/faces.dvc")
    assert problem
    assert "corrupted" not in problem


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("data/faces.dvc", b"- md5: ", b"- md5 : ["),
        ("data/faces.dvc", b"outs:", b"# kept by hand\nouts: see"),
        ("data/faces.dvc", b"  path: faces\n", b"  pat"),  # with a line of a person before it
        ("dvc.lock", b"    deps:", b"   deps:"),
        ("dvc.lock", b"schema: ", b"# mine\nschema: ["),
    ],
)
def test_what_a_person_broke_is_named_and_left(root: Path, name: str, old: bytes, new: bytes) -> None:
    file = root / name
    broken = file.read_bytes().replace(old, new)
    if new == b"  pat":
        broken = b"desc: my faces\n" + broken
    assert broken != file.read_bytes()
    file.write_bytes(broken)
    (root / ".dvc" / "tmp" / "dvc.lock.whole").touch()
    for call in (lambda: repro_stage(root, "one"), lambda: make_version(root, "data/faces", "two")):
        with pytest.raises(UserError, match=rf"{name}: damaged, and not by a killed DVC.* `git checkout -- {name}`"):
            call()
        assert file.read_bytes() == broken


def test_of_a_cut_file_wherever_it_ends_nothing_is_lost(root: Path) -> None:
    pointer, lock = root / "data" / "faces.dvc", root / "dvc.lock"
    wholes = {file: file.read_bytes() for file in (pointer, lock)}
    for file, whole in wholes.items():
        for cut in range(0, len(whole) - 1, 3):
            file.write_bytes(whole)
            mend_interrupted(root)
            file.write_bytes(whole[:cut])
            mend_interrupted(root)
            content = file.read_bytes() if file.is_file() else None
            left = {pointer: (None,), lock: (whole, whole[:cut])}  # a list of files that is cut between two is whole
            assert content in left[file], (file, cut)
            if content is None:
                assert (root / ".dvc" / "tmp" / "faces.dvc.cut").read_bytes() == whole[:cut]
        file.write_bytes(whole)


def test_nothing_is_mended_while_dvc_is_at_work(root: Path) -> None:
    lists = root / ".dvc" / "tmp" / "rwlock"
    lists.write_text("")
    with hold(root / ".dvc" / "tmp" / "rwlock.lock", RuntimeError()):
        with pytest.raises(StageFailed):
            repro_stage(root, "one")
        assert lists.read_text() == ""


def test_the_lock_of_a_killed_git_is_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(git_module, "_LOCK_SECONDS", 0.2)
    for name in ("refs/tags/faces-v2.lock", "packed-refs.lock"):
        (root / ".git" / name).touch()
    add_photo(root)
    assert make_version(root, "data/faces", "two").tag == "faces-v2"
    git(root, "tag", "short")
    (root / ".git" / "packed-refs.lock").touch()
    assert run_git(root, "tag", "-d", "short").code == 0
    assert not list((root / ".git").rglob("*.lock"))
    assert "left by a killed git" in capsys.readouterr().err


def test_the_lock_of_a_git_at_work_is_waited_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = root / ".git" / "refs" / "tags" / "mine.lock"
    lock.touch()
    threading.Timer(0.3, lock.unlink).start()
    started = time.monotonic()
    assert run_git(root, "update-ref", "refs/tags/mine", "HEAD").code == 0
    assert 0.2 < time.monotonic() - started < 5
    assert capsys.readouterr().err == ""


def test_the_lock_of_the_index_stays(root: Path) -> None:
    """A user's git holds it while an editor is open."""
    (root / ".git" / "index.lock").touch()
    assert "index.lock" in run_git(root, "add", "-A").error
    assert (root / ".git" / "index.lock").is_file()
