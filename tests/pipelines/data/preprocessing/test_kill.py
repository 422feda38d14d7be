"""Whichever process is killed, no row is lost or duplicated, and no finished slice is computed again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.realdata, pytest.mark.nightly, pytest.mark.timeout(900)]

SMALL = ("preprocess.slice_photos=4",)
SLICES = 10


def _account(name: str, stage: Any, finished: dict[str, tuple[int, int]], rows_in: int) -> None:
    """Print and check the result of a disturbed run; `finished` are the slices before the kill."""
    now = stage.finished()
    again = sum(now.get(file) != written for file, written in finished.items())
    print(
        f"\n{name}: rows in {rows_in}, rows out {stage.count_rows()}, partitions {len(now)}, "
        f"finished before the kill {len(finished)}, of these computed again {again}"
    )
    assert len(now) == SLICES
    assert again == 0
    assert stage.count_rows() == rows_in
    ids = [
        row for file in (stage.folder / "processed").iterdir() for row in pq.read_table(file)["image_id"].to_pylist()
    ]
    assert len(set(ids)) == rows_in


def test_a_killed_python_worker(
    faces: Path, start_stage: Callable[..., Any], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    stage = start_stage(tmp_path, faces, *SMALL)
    stage.wait_for_slices(1)
    workers = stage.python_workers()
    assert workers
    for worker in workers:
        worker.kill()
    finished = stage.finished()
    assert len(finished) < SLICES
    assert stage.report()["rows"] == 40
    _account("python worker killed", stage, finished, 40)
    assert stage.rows() == undisturbed


def test_a_killed_driver_that_is_started_again(
    faces: Path, start_stage: Callable[..., Any], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    first = start_stage(tmp_path, faces, *SMALL)
    first.wait_for_slices(3)
    first.kill_driver()
    assert not (tmp_path / "processed").exists()
    finished = first.finished()
    assert 3 <= len(finished) < SLICES
    (tmp_path / ".dynamicid" / "preprocess" / ".half.arrow.1.part").write_bytes(b"half a face")
    again = start_stage(tmp_path, faces, *SMALL)
    assert again.report()["looked_at"] == 40 - 4 * len(finished)
    _account("driver killed and started again", again, finished, 40)
    assert again.rows() == undisturbed
    left = {file.name for file in (tmp_path / ".dynamicid" / "preprocess").iterdir() if file.suffix != ".arrow"}
    assert not [name for name in left if name.startswith(".half")], left
