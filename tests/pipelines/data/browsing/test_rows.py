"""A sample of rows is bounded and fair, and holds nothing that may not be shown."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import UserError
from pipelines.core.row_schemas import PROCESSED_SCHEMA, open_rows
from pipelines.core.sections.data import Rights
from pipelines.data.browsing import rows
from pipelines.data.browsing.rows import choose, numbers_of, rows_at
from pipelines.data.export.rows import Selection
from tests.pipelines.photos import write_shards

COUNT = 50


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Fifty rows in two files with row groups of four; every fifth is refused, the odd ones are rejected."""
    made = [
        {
            "image_id": f"{number:064x}",
            "identity": f"p{number // 10}",
            "file_name": f"{number}.jpg",
            "status": "rejected" if number % 2 else "ok",
            "reason": "no_face" if number % 2 else None,
            "consent": "refused" if number % 5 == 0 else None,
            "image": bytes([number]),
        }
        for number in range(COUNT)
    ]
    folder = write_shards(tmp_path_factory.mktemp("rows"), PROCESSED_SCHEMA, [made[:33], made[33:]], row_group=4)
    return open_rows(folder, PROCESSED_SCHEMA).files


@given(sample=st.integers(1, 60), among=st.none() | st.sets(st.integers(0, COUNT - 1)), seed=st.integers(0, 9))
@settings(derandomize=True, max_examples=40)
def test_a_sample_is_bounded_and_holds_only_what_fits(
    files: list[str], sample: int, among: set[int] | None, seed: int
) -> None:
    wanted = Selection(Rights())
    found = choose(files, PROCESSED_SCHEMA, wanted, sample=sample, among=among, seed=seed)
    fitting = [number for number in range(COUNT) if (among is None or number in among) and number % 5]
    assert found.of == len(fitting)
    assert len(found.positions) == min(sample, len(fitting))
    assert found.positions == sorted(set(found.positions))
    assert set(found.positions) <= set(fitting)
    again = choose(files, PROCESSED_SCHEMA, Selection(Rights()), sample=sample, among=among, seed=seed)
    assert again == found


def test_every_row_is_as_likely_and_batches_do_not_matter(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict.fromkeys(range(COUNT), 0)
    for seed in range(200):
        for number in choose(files, PROCESSED_SCHEMA, Selection(), sample=10, seed=seed).positions:
            counts[number] += 1
    assert min(counts.values()) > 15  # 40 are expected, with a deviation of 6
    assert max(counts.values()) < 65
    whole = choose(files, PROCESSED_SCHEMA, Selection(), sample=10)
    monkeypatch.setattr(rows, "_ROWS_AT_ONCE", 7)
    assert choose(files, PROCESSED_SCHEMA, Selection(), sample=10) == whole


def test_forgotten_rows_and_refused_copies_are_counted_and_left_out(files: list[str]) -> None:
    wanted = Selection(Rights(), gate=lambda identity, image_id: "forgotten" if identity == "p4" else None)
    wanted.refused = frozenset([f"{1:064x}"])
    found = choose(files, PROCESSED_SCHEMA, wanted, sample=COUNT)
    assert not set(found.positions) & {1, *range(0, COUNT, 5), *range(40, 50)}
    assert wanted.left_out["forgotten"] == 10
    assert wanted.left_out["consent denied"] == 8
    assert wanted.left_out["consent refused for the same photo elsewhere"] == 1


def test_values_of_columns_choose_rows(files: list[str]) -> None:
    where = {"reason": "no_face", "identity": "p1"}
    assert choose(files, PROCESSED_SCHEMA, Selection(), sample=9, where=where).positions == [11, 13, 15, 17, 19]
    accepted = choose(files, PROCESSED_SCHEMA, Selection(), sample=99, where={"reason": ""})
    assert accepted.positions == list(range(0, COUNT, 2))
    with pytest.raises(UserError, match=r"yaw: no column of text; there are image_id"):
        choose(files, PROCESSED_SCHEMA, Selection(), sample=9, where={"yaw": "1"})


def test_rows_are_read_by_their_numbers(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [0, 3, 4, 31, 32, 33, 49]
    read = []
    iterate = rows.pq.ParquetFile.iter_batches

    def counted(self: object, *arguments: object, **options: object) -> object:
        read.append(options["row_groups"])
        return iterate(self, *arguments, **options)

    monkeypatch.setattr(rows.pq.ParquetFile, "iter_batches", counted)
    found = list(rows_at(files, numbers, ["file_name", "image", "none"]))
    assert [row["file_name"] for row in found] == [f"{number}.jpg" for number in numbers]
    assert [row["image"] for row in found] == [bytes([number]) for number in numbers]
    assert found[0]["none"] is None
    assert read == [[0], [1], [7], [8], [0], [4]]


def test_photos_are_found_by_their_ids(files: list[str]) -> None:
    assert numbers_of(files, {f"{40:064x}", f"{2:064x}", "none"}) == [2, 40]


def test_an_older_format_lacks_columns(tmp_path: Path) -> None:
    older = pa.schema([field for field in PROCESSED_SCHEMA if field.name not in ("pose", "domain")])
    folder = write_shards(tmp_path, older, [[{"image_id": "0" * 64, "file_name": "a.jpg"}]])
    files = [str(path) for path in folder.glob("*.parquet")]
    assert choose(files, PROCESSED_SCHEMA, Selection(), sample=1, where={"pose": ""}).positions == [0]
    with pytest.raises(UserError, match="pose=front: no row has this value"):
        choose(files, PROCESSED_SCHEMA, Selection(), sample=1, where={"pose": "front"})
