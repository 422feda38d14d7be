"""Copies and earlier rows are those of a plain loop, whether the driver or Spark's SQL engine finds them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import StageFailed
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.data.preprocessing import matches
from pipelines.data.preprocessing.matches import find_earlier_rows, find_originals
from pipelines.data.preprocessing.slice_table import ANALYSIS
from pipelines.data.preprocessing.slices import Slice
from pipelines.data.preprocessing.tasks import Job, plan_slice
from pipelines.data.spark import spark_context

ROWS, SHARDS = 3000, 3
BOTH = [pytest.param(ROWS, id="driver"), pytest.param(0, id="spark")]
# A name in composed and decomposed form, one that sorts after them by bytes, a copy's name, and nobody.
PEOPLE = ["Zo\u00eb", "Zoe\u0308", "\U0001f600", "\uffee", "a  b", None]


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    with spark_context("local[1]", "test") as context:
        yield context


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Shards in a folder whose name is a pattern for Spark; half of the photos occur several times."""
    folder = tmp_path_factory.mktemp("faces") / "odd {name} [1] *?"
    folder.mkdir()
    chance = random.Random(0)
    files = []
    for shard in range(SHARDS):
        columns = {
            "image_id": [f"{chance.randrange(ROWS):064x}" for _ in range(ROWS // SHARDS)],
            "identity": [chance.choice(PEOPLE) for _ in range(ROWS // SHARDS)],
            "file_name": [f"{chance.choice('aé日')}/{chance.randrange(5)}.jpg" for _ in range(ROWS // SHARDS)],
        }
        arrays = [
            pa.array(columns.get(field.name) or [None] * (ROWS // SHARDS), field.type) for field in DATASET_SCHEMA
        ]
        files.append(folder / f"part-{shard}.parquet")
        pq.write_table(pa.Table.from_arrays(arrays, schema=DATASET_SCHEMA), files[-1], row_group_size=100)
    return files


def _expected(shards: list[Path]) -> dict[str, tuple[str, str]]:
    import unicodedata

    rows: dict[str, list[tuple[str, str]]] = {}
    for shard in shards:
        for row in pq.read_table(shard, columns=["image_id", "file_name", "identity"]).to_pylist():
            name = " ".join(unicodedata.normalize("NFC", row["identity"] or "").split())
            rows.setdefault(row["image_id"], []).append((row["file_name"], name))
    return {image_id: min(found) for image_id, found in rows.items() if len(found) > 1}


@pytest.mark.parametrize("in_driver", BOTH)
def test_copies_are_those_of_a_plain_loop(context: Any, shards: list[Path], in_driver: int) -> None:
    found = find_originals(context, shards, in_driver)
    assert found == _expected(shards)
    assert len(found) > 100


@pytest.mark.parametrize("in_driver", BOTH)
def test_rows_of_earlier_slices_are_those_of_a_plain_loop(
    context: Any, shards: list[Path], tmp_path: Path, in_driver: int
) -> None:
    job = Job(None, "version", tmp_path)  # type: ignore[arg-type]
    originals = context.broadcast(_expected(shards))
    slices = [Slice(str(shard), start, start + 250) for shard in shards for start in range(0, 1000, 250)]
    keys = [plan_slice(piece, job, originals.value).keys for piece in slices]
    known = [key for some in keys for key in some if key is not None]
    chance = random.Random(1)
    earlier = []
    for number in range(4):
        held = [*chance.sample(known, 300), *(f"{chance.getrandbits(128):032x}" for _ in range(50)), None]
        chance.shuffle(held)
        earlier.append((tmp_path / f"{number}.arrow", held))
        with pa.ipc.new_file(earlier[-1][0], pa.schema([(ANALYSIS, pa.string())])) as file:
            file.write_table(pa.table({ANALYSIS: pa.array(held, pa.string())}))
    (tmp_path / "cut.arrow").write_bytes(earlier[0][0].read_bytes()[:100])
    files = [*(str(file) for file, _ in earlier), str(tmp_path / "cut.arrow")]

    first: dict[str | None, tuple[str, int]] = {}
    for file, held in earlier:
        for place, key in enumerate(held):
            first.setdefault(key, (str(file), place))
    expected = {
        number: [(row, *first[key]) for row, key in enumerate(some) if key is not None and key in first]
        for number, some in enumerate(keys)
    }
    found = find_earlier_rows(context, slices, files, job, originals, in_driver=in_driver)
    assert {
        number: list(zip(rows.rows.tolist(), rows.files, rows.places.tolist(), strict=True))
        for number, rows in found.items()
    } == {number: rows for number, rows in expected.items() if rows}


@pytest.mark.parametrize("in_driver", BOTH)
def test_a_shard_that_is_damaged_is_named(
    context: Any, shards: list[Path], tmp_path: Path, in_driver: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matches.pq, "read_metadata", lambda shard: pq.ParquetFile(shards[0]).metadata)
    damaged = tmp_path / "part-0.parquet"
    damaged.write_bytes(b"PAR1")
    with pytest.raises(StageFailed, match=r"finding duplicates: a worker failed: ArrowInvalid: .*part-0"):
        find_originals(context, [damaged], in_driver)
