"""Two versions differ by rows: a row is the same where its photo is, also under another name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.core.sections.data import Rights
from pipelines.data.browsing import difference
from pipelines.data.browsing.difference import _of_all as of_all
from pipelines.data.browsing.difference import compare
from pipelines.data.export.rows import Selection
from tests.pipelines.photos import Row, dataset_row, write_shards


def version(folder: Path, rows: list[Row]) -> list[str]:
    write_shards(folder, DATASET_SCHEMA, [rows[:2], rows[2:]])
    return sorted(str(path) for path in folder.glob("*.parquet"))


def photo(name: str, data: bytes, identity: str, **labels: Any) -> Row:
    return dataset_row(name, data, identity, **labels)


BEFORE = [
    photo("a/1.jpg", b"1", "a"),
    photo("a/2.jpg", b"2", "a", prompt="old"),
    photo("b/1.jpg", b"3", "b"),
    photo("c/1.jpg", b"4", "c"),
    photo("c/2.jpg", b"5", "c", consent="refused"),
]


def test_nothing_differs_between_a_version_and_itself(tmp_path: Path) -> None:
    files = version(tmp_path / "one", BEFORE)
    found = compare(files, version(tmp_path / "two", BEFORE[::-1]), Selection())
    assert (found.added, found.removed, found.changed, found.rows) == ([], [], [], (5, 5))


def test_added_removed_changed_and_renamed_rows(tmp_path: Path) -> None:
    after = [
        photo("a/1.jpg", b"1", "a"),
        photo("a/2.jpg", b"2", "a", prompt="new", licence="CC0"),
        photo("moved/1.jpg", b"3", "b"),
        photo("d/1.jpg", b"6", "d"),
        photo("d/2.jpg", b"7", "d", consent="refused"),
    ]
    wanted = Selection(Rights())
    found = compare(version(tmp_path / "one", BEFORE), version(tmp_path / "two", after), wanted)
    assert [(one.file_name, one.identity, one.before, one.after) for one in found.added] == [("d/1.jpg", "d", None, 3)]
    assert [(one.file_name, one.before, one.after) for one in found.removed] == [("c/1.jpg", 3, None)]
    changed = {one.file_name: one.labels for one in found.changed}
    assert changed == {
        "a/2.jpg": {"prompt": ["old", "new"], "licence": [None, "CC0"]},
        "moved/1.jpg": {"file_name": ["b/1.jpg", "moved/1.jpg"]},
    }
    assert (found.people_added, found.people_removed, found.left_out) == (["d"], ["c"], {"consent denied": 2})
    assert found.summary() == [
        "rows: 4 → 4",
        "people: 3 → 3",
        "added: 1 row; 1 person is new: d",
        "removed: 1 row; 1 person is gone: c",
        "changed labels: 2 rows (file_name 1, licence 1, prompt 1)",
        "not compared: 2 consent denied",
    ]


@pytest.mark.parametrize("order", [1, -1])
def test_several_rows_of_one_photo_are_matched_by_their_names(tmp_path: Path, order: int) -> None:
    before = [photo("a/1.jpg", b"1", "a"), photo("again/1.jpg", b"1", "again")]
    after = [*before, photo("third/1.jpg", b"1", "third")][::order]
    found = compare(version(tmp_path / "one", before), version(tmp_path / "two", after), Selection())
    assert ([one.file_name for one in found.added], found.removed, found.changed) == (["third/1.jpg"], [], [])


def test_a_forgotten_person_is_named_nowhere(tmp_path: Path) -> None:
    wanted = Selection(gate=lambda identity, image_id: "forgotten" if identity == "c" else None)
    after = [row for row in BEFORE if row["identity"] != "c"]
    found = compare(version(tmp_path / "one", BEFORE), version(tmp_path / "two", after), wanted)
    assert (found.removed, found.people_removed, found.left_out) == ([], [], {"forgotten": 2})


def test_rows_of_files_that_both_versions_have_are_counted_and_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week adds files to those of the week before; row numbers go on through the files that are not held."""
    before = version(tmp_path / "one", BEFORE)
    new = version(tmp_path / "two", [photo("d/1.jpg", b"6", "d"), photo("a/1.jpg", b"1", "a")])
    wanted = Selection(Rights())
    found = compare(before, [*before, *new], wanted)
    assert [(one.file_name, one.identity, one.after) for one in found.added] == [
        ("d/1.jpg", "d", 5),
        ("a/1.jpg", "a", 6),
    ]
    assert (found.removed, found.changed, found.rows) == ([], [], (4, 6))
    assert (found.people, found.people_added, found.left_out) == ((3, 4), ["d"], {"consent denied": 2})
    back = compare([*before, *new], before[:1], Selection(Rights()))
    assert sorted(one.file_name for one in back.removed) == ["a/1.jpg", "b/1.jpg", "c/1.jpg", "d/1.jpg"]
    held = []
    monkeypatch.setattr(
        difference, "_of_all", lambda batch, columns: held.append(batch.num_rows) or of_all(batch, columns)
    )
    compare(before, [*before, *new], Selection())
    assert sum(held) == 2
