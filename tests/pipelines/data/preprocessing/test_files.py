"""Slices and buckets are written atomically, always with the same bytes, and can be read in part."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data.preprocessing import files
from pipelines.data.preprocessing.slice_table import HASH


def _rows(count: int = 100) -> pa.Table:
    return pa.table(
        {
            "image_id": [f"photo {row}" for row in range(count)],
            "image": [bytes([row]) * 1000 for row in range(count)],
            HASH: [row * 10 for row in range(count)],
        }
    )


def test_a_slice_is_read_in_part(tmp_path: Path) -> None:
    file = tmp_path / "s.arrow"
    files.write_slice(_rows(), file)
    assert files.read_hash_range([file], 101, 130)["image_id"].to_pylist() == ["photo 11", "photo 12", "photo 13"]
    assert files.read_hash_range([file], 110, 119)["image_id"].to_pylist() == ["photo 11"]
    assert files.read_hash_range([file], 10**6, 2**63 - 1).num_rows == 0
    assert files.read_hash_range([file], 0, 10**6).equals(_rows())
    assert files.read_slice_file(file, places=[7, 3])["image"].to_pylist() == [b"\7" * 1000, b"\3" * 1000]
    assert files.read_slice_file(file, columns=[HASH]).column_names == [HASH]


def test_the_ends_of_the_range_are_exact(tmp_path: Path) -> None:
    file = tmp_path / "s.arrow"
    greatest = 2**63 - 1
    hashes = [greatest - 3, greatest - 2, greatest - 1, greatest]
    files.write_slice(pa.table({"image_id": ["a", "b", "c", "d"], HASH: hashes}), file)
    assert files.read_hash_range([file], greatest - 2, greatest)["image_id"].to_pylist() == ["b", "c", "d"]
    assert files.read_hash_range([file], 0, greatest - 3)["image_id"].to_pylist() == ["a"]


def test_many_slices_are_read_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MAPPED", 2)
    slices = [tmp_path / f"{number}.arrow" for number in range(5)]
    for number, file in enumerate(slices):
        files.write_slice(_rows(20 + number), file)
    rows = files.read_hash_range(slices, 190, 220)
    for file in slices:
        file.unlink()
    assert rows[HASH].to_pylist() == [190, 190, 200, 190, 200, 210, 190, 200, 210, 220, 190, 200, 210, 220]
    assert rows["image"][0].as_py() == b"\x13" * 1000


def test_rows_read_from_a_slice_do_not_need_its_file(tmp_path: Path) -> None:
    file = tmp_path / "s.arrow"
    files.write_slice(_rows(), file)
    rows = files.read_slice_file(file, places=[5])
    file.write_bytes(b"")
    assert rows["image"].to_pylist() == [b"\5" * 1000]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    halves = pa.concat_tables([_rows().slice(0, 40), _rows().slice(40)])
    for number, rows in enumerate([_rows(), halves]):
        files.write_slice(rows, tmp_path / f"{number}.arrow")
        files.write_bucket_file(rows, tmp_path / f"{number}.parquet")
    assert (tmp_path / "0.arrow").read_bytes() == (tmp_path / "1.arrow").read_bytes()
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()
    assert pq.read_table(tmp_path / "0.parquet").equals(_rows())


def test_unfinished_files_of_killed_writers_are_deleted(tmp_path: Path) -> None:
    (tmp_path / ".abc.arrow.123.part").write_bytes(b"half a face")
    (tmp_path / ".lock").touch()
    (tmp_path / "abc.arrow").touch()
    files.remove_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "abc.arrow"]
