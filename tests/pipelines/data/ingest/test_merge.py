"""Several names of one person become one, in the shards that have them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.cli import main
from pipelines.core.errors import UserError
from pipelines.core.row_schemas import DATASET_SCHEMA, read_rows
from pipelines.data.ingest.shards import merge_people
from tests.pipelines.photos import write_shards

NAMES = (["anna", "ben", None], ["Zoe\u0301", "carl"], ["carl", "carl"])


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    shards = [
        [{"image_id": f"{shard}{row}", "identity": name, "image": b"x"} for row, name in enumerate(names)]
        for shard, names in enumerate(NAMES)
    ]
    return write_shards(tmp_path / "faces", DATASET_SCHEMA, shards, row_group=1)


def test_names_in_any_form_are_merged_and_nothing_else_changes(faces: Path) -> None:
    files = sorted(faces.glob("*.parquet"))
    before = [read_rows(faces, DATASET_SCHEMA).drop_columns(["identity"]), files[2].read_bytes()]
    assert merge_people(faces, "anna", ["Zo\u00e9", "ben"]) == 2
    rows = read_rows(faces, DATASET_SCHEMA)
    assert rows["identity"].to_pylist() == ["anna", "anna", None, "anna", "carl", "carl", "carl"]
    assert [rows.drop_columns(["identity"]), files[2].read_bytes()] == before
    assert pq.ParquetFile(files[0]).num_row_groups == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [(("anna", "bern"), "no photo of 'bern'; there are ben"), (("anna", "carl", "anna"), "'anna': named twice")],
)
def test_an_unknown_name_is_refused_and_nothing_changes(names: tuple[str, ...], message: str, faces: Path) -> None:
    before = [file.read_bytes() for file in sorted(faces.glob("*"))]
    with pytest.raises(UserError, match=message):
        merge_people(faces, names[0], names[1:])
    assert [file.read_bytes() for file in sorted(faces.glob("*"))] == before


def test_the_command_says_how_many_and_what_is_next(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dataset", "merge", "carl", "anna", "ben", "--dir", str(faces), "--no-version"])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"photos": 2, "version": None}
    assert "2 photos of 'carl' now; `dynamicid repro`" in printed.err
