"""Slices cover every row once, whatever the row groups are, and do not change when shards are added."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.params import load_params
from pipelines.data.preprocessing.slices import Slice, cut_slices, read_slice
from pipelines.data.preprocessing.tasks import Job, plan_slice

from .conftest import write_faces


def _shard(file: Path, rows: int, row_group: int, size: int = 10) -> Path:
    table = pa.table({"name": [f"{file.stem}-{row}" for row in range(rows)], "image": [b"x" * size] * rows})
    pq.write_table(table, file, row_group_size=row_group, use_dictionary=False, compression="NONE")
    return file


@pytest.mark.parametrize(("rows", "row_group"), [(1, 1), (100, 7), (100, 100), (250, 64), (33, 1)])
@pytest.mark.parametrize("photos", [1, 16, 1000])
def test_every_row_is_in_one_slice(tmp_path: Path, rows: int, row_group: int, photos: int) -> None:
    shard = _shard(tmp_path / "a.parquet", rows, row_group)
    slices = cut_slices([shard], photos)
    assert all(piece.rows <= photos for piece in slices)
    names = [
        name
        for piece in slices
        for batch in read_slice(piece, ["name"], 5)
        for name in batch.column("name").to_pylist()
    ]
    assert names == [f"a-{row}" for row in range(rows)]


def test_small_row_groups_are_joined_and_large_ones_divided_evenly(tmp_path: Path) -> None:
    joined = cut_slices([_shard(tmp_path / "a.parquet", 90, 10)], 30)
    assert [(piece.start, piece.stop) for piece in joined] == [(0, 30), (30, 60), (60, 90)]
    divided = cut_slices([_shard(tmp_path / "b.parquet", 300, 300)], 256)
    assert [piece.rows for piece in divided] == [150, 150]


def test_big_photos_make_smaller_slices(tmp_path: Path) -> None:
    shard = _shard(tmp_path / "a.parquet", 48, 12, size=4 * 2**20)
    assert max(piece.rows for piece in cut_slices([shard], 1000)) <= 17


def test_a_dataset_with_both_forms_of_a_name_has_one_person(project: Path, tmp_path: Path) -> None:
    """One person of an earlier version's dataset must not be in two splits."""
    folder = write_faces(tmp_path, [("1.jpg", "Zo\u00eb", b"one"), ("2.jpg", "Zoe\u0308", b"two")])
    pieces = cut_slices(sorted(folder.glob("*.parquet")), 10)
    job = Job(load_params(project / "profiles" / "tiny.yaml").preprocess, "version", tmp_path)
    assert plan_slice(pieces[0], job, {}).given([0, 1])["identity"] == ["Zo\u00eb", "Zo\u00eb"]


def test_slices_of_a_shard_stay_when_others_are_added(tmp_path: Path) -> None:
    first = _shard(tmp_path / "a.parquet", 70, 20)
    alone = cut_slices([first], 30)
    assert cut_slices([_shard(tmp_path / "0.parquet", 50, 20), first], 30)[-len(alone) :] == alone


def test_batches_are_bounded_and_reading_stops_at_the_end_of_the_slice(tmp_path: Path) -> None:
    shard = _shard(tmp_path / "a.parquet", 100, 40)
    batches = list(read_slice(Slice(str(shard), 35, 58), ["name", "image"], 8))
    assert max(batch.num_rows for batch in batches) <= 8
    assert sum(batch.num_rows for batch in batches) == 23
    assert batches[0].column("name")[0].as_py() == "a-35"
