"""The list of the forgotten: lookups, duplicates, and that it holds no names."""

from __future__ import annotations

from pathlib import Path

from pipelines.versions.forgotten import LEDGER, Entry, Forgotten, append, describe_entries, new_entry, read_ledger

ONE, OTHER = "1" * 64, "2" * 64


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
