"""The list of the forgotten: lookups, duplicates, and that it holds no names."""

from __future__ import annotations

import hashlib
import json
import shutil
import unicodedata
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.versions.forgotten import (
    LEDGER,
    Entry,
    Forgotten,
    append,
    describe_entries,
    gate,
    new_entry,
    read_ledger,
    refuse_forgotten,
)
from tests.pipelines.photos import dataset_row, write_shards
from tests.processes import commit_all, git

ONE, OTHER = "1" * 64, "2" * 64
JOSE = unicodedata.normalize("NFC", "José Müller")


def checkout_in(folder: Path) -> Path:
    """Make a git repository with a DVC configuration, and return it."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").touch()
    commit_all(folder, "start")
    return folder


def test_photos_and_people_are_found_and_no_name_is_stored(tmp_path: Path) -> None:
    append(tmp_path, new_entry(["anna"], [ONE], {"a.dir": "b.dir"}))
    text = (tmp_path / LEDGER).read_text()
    assert "anna" not in text
    assert ONE not in text
    known = read_ledger(tmp_path)
    assert known.entry_of("anna") is not None
    assert known.entry_of(None, ONE) is not None
    assert known.entry_of("bert", OTHER) is None
    assert known.entry_of(None) is None


def test_the_same_name_has_a_different_hash_each_time() -> None:
    first, second = new_entry(["anna"], [ONE], {}), new_entry(["anna"], [ONE], {})
    assert first.people != second.people
    assert first.photos == second.photos


def test_a_request_that_is_finished_later_is_written_once(tmp_path: Path) -> None:
    append(tmp_path, new_entry(["anna"], [ONE], {"a.dir": "b.dir"}))
    append(tmp_path, new_entry(["anna"], [ONE], {"a.dir": "b.dir"}))
    assert len(read_ledger(tmp_path).entries) == 1
    append(tmp_path, new_entry(["bert"], [OTHER], {"b.dir": None}))
    assert len(read_ledger(tmp_path).entries) == 2


def test_what_is_left_of_a_dataset_after_several_requests() -> None:
    entries = [
        Entry("2026-01-01", [], ["x"], {"a.dir": "b.dir", "c.dir": "d.dir"}),
        Entry("2026-01-02", [["s", "h"]], ["y", "z"], {"b.dir": "e.dir", "a.dir": "e2.dir"}),
        Entry("2026-01-03", [], ["w"], {"d.dir": None}),
    ]
    known = Forgotten(entries)
    assert known.left_of("a.dir") == "e.dir"
    assert known.left_of("b.dir") == "e.dir"
    assert known.left_of("c.dir") is None
    assert known.left_of("other.dir") == "other.dir"
    assert [entry.when for entry in known.of_dataset("a.dir")] == ["2026-01-01", "2026-01-02"]
    assert describe_entries(entries[:2]) == (
        "forgotten since: 1 photo on 2026-01-01; 2 photos of 1 person on 2026-01-02 (data/forgotten.jsonl)"
    )
    assert describe_entries([]) == ""


def test_a_name_is_one_person_in_both_forms_of_unicode_and_however_it_is_spaced(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", JOSE)
    for given, asked in ((JOSE, decomposed), (decomposed, JOSE), (f" {JOSE}", JOSE.replace(" ", "  "))):
        known = Forgotten([new_entry([given], [], {})])
        assert known.entry_of(asked) is not None
        assert known.entry_of(JOSE.lower()) is None
    # An entry of an earlier version hashed the name as it was given.
    raw = hashlib.sha256(f"salt:person:{decomposed}".encode()).hexdigest()
    assert Forgotten([Entry("2026", [["salt", raw]], [])]).entry_of(JOSE) is not None


def test_a_list_that_is_cut_damaged_newer_or_unreadable_lets_nothing_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = checkout_in(tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    file = root / LEDGER
    append(root, new_entry(["anna"], [ONE], {}))
    append(root, new_entry(["bert"], [OTHER], {}))
    whole = file.read_bytes()
    for text, problem in (
        (whole[:-20], r"forgotten.jsonl, line 2: the list of the forgotten is cut or damaged; no photo passes"),
        (b"\xff\x00" + whole, "line 1: .* is cut or damaged"),
        (json.dumps({"when": "2030", "people": [], "photos": [], "faces": 1}).encode(), "use the version that wrote"),
        (b"7\n" + whole, "line 1: .* is not an entry"),
    ):
        file.write_bytes(text)
        with pytest.raises(UserError, match=problem):
            gate(root / "data" / "faces")
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        gate(root)
    file.rmdir()
    file.symlink_to(tmp_path / "other disk" / "forgotten.jsonl")
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        gate(root)


def test_a_list_that_was_deleted_here_is_read_from_every_branch_and_tag(tmp_path: Path) -> None:
    root = checkout_in(tmp_path / "home")
    append(root, new_entry(["anna"], [], {}))
    commit_all(root, "forgotten")
    (root / LEDGER).unlink()
    git(root, "checkout", "-q", "--detach", "HEAD~")
    assert gate(root).entry_of("anna") is not None


def test_a_workspace_asks_the_checkout_that_it_is_a_clone_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = checkout_in(tmp_path / "home")
    for at, clone in ((home, tmp_path / "run"), (tmp_path / "run", tmp_path / "run of a run")):
        git(tmp_path, "clone", "-q", str(at), str(clone))
    append(home, new_entry(["anna"], [], {}))  # after the clones, and not committed
    monkeypatch.chdir(tmp_path / "run of a run")
    assert gate().entry_of("anna") is not None
    home.rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"home: no such folder, though this checkout is a clone of it"):
        gate()
    git(tmp_path / "run", "remote", "set-url", "origin", "git@machine.example:faces.git")
    assert not gate(), "another machine's list comes with `git pull`"
    monkeypatch.setenv("DYNAMICID_HOME", str(tmp_path / "away"))
    assert gate().entry_of("anna") is not None


def test_a_link_to_another_disk_asks_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, disk = checkout_in(tmp_path / "home"), checkout_in(tmp_path / "disk")
    append(home, new_entry(["anna"], [], {}))
    append(disk, new_entry(["bert"], [], {}))
    (disk / "faces").mkdir()
    (home / "data" / "faces").symlink_to(disk / "faces")
    monkeypatch.chdir(tmp_path)
    known = gate(home / "data" / "faces")
    assert known.entry_of("anna")
    assert known.entry_of("bert")


def test_rows_are_refused_by_person_and_by_the_bytes_of_the_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = checkout_in(tmp_path / "home")
    monkeypatch.chdir(root)
    photo = hashlib.sha256(b"one").hexdigest()
    append(root, new_entry([JOSE], [photo], {}))
    faces = root / "data" / "faces"
    named = dataset_row("new.jpg", b"two", unicodedata.normalize("NFD", JOSE))
    renamed = dataset_row("old.jpg", b"one", "carl")
    hidden = {**dataset_row("hidden.jpg", b"one", None), "image_id": OTHER}
    other = dataset_row("other.jpg", b"three", "dora")
    for row, message in (
        (named, "1 photo in it forgotten on request .*--again"),
        (renamed, "carl, such as old.jpg"),
        (hidden, "photos without a name, such as hidden.jpg"),
    ):
        shutil.rmtree(faces, ignore_errors=True)
        write_shards(faces, DATASET_SCHEMA, [[other, row]])
        with pytest.raises(StageFailed, match=message):
            refuse_forgotten(faces, content=True)
    shutil.rmtree(faces)
    refuse_forgotten(write_shards(faces, DATASET_SCHEMA, [[other]]), content=True)
