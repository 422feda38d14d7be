"""A subject's rows in a table, and the table without them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import UserError
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.operations.forgetting.subject import Subject, subject_of
from pipelines.operations.forgetting.tables import rows_in, write_without

ONE, OTHER = "1" * 64, "2" * 64


def table(file: Path, rows: list[tuple[str, str | None]]) -> Path:
    values = [{"image_id": name, "identity": person, "image": b"x" * 100, "n_bytes": 100} for name, person in rows]
    pq.write_table(pa.Table.from_pylist(values, schema=DATASET_SCHEMA), file, row_group_size=2)
    return file


def test_rows_are_found_by_name_and_by_photo(tmp_path: Path) -> None:
    file = table(tmp_path / "a.parquet", [(ONE, "anna"), (OTHER, None), (ONE, "bert"), ("3" * 64, "carl")])
    assert rows_in(file, Subject(frozenset(["anna"]), frozenset())).image_ids == {ONE}
    subject = Subject(frozenset(["anna"]), frozenset([ONE]))
    before = file.read_bytes()
    assert write_without(file, tmp_path / "b.parquet", subject) == 2
    assert file.read_bytes() == before
    assert pq.read_table(tmp_path / "b.parquet")["identity"].to_pylist() == [None, "carl"]
    assert pq.read_schema(tmp_path / "b.parquet").equals(DATASET_SCHEMA)
    assert rows_in(tmp_path / "b.parquet", subject).image_ids == frozenset()
    assert write_without(file, file, subject) == 2
    assert file.read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_table_without_other_rows_leaves_no_file(tmp_path: Path) -> None:
    file = table(tmp_path / "a.parquet", [(ONE, "anna")])
    assert write_without(file, tmp_path / "b.parquet", Subject(frozenset(), frozenset([ONE]))) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_file_that_is_not_a_table_of_photos_gives_none(tmp_path: Path) -> None:
    pq.write_table(pa.table({"step": [1]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and then nothing")
    subject = Subject(frozenset(["anna"]), frozenset())
    assert rows_in(tmp_path / "a.parquet", subject) is None
    assert rows_in(tmp_path / "b.parquet", subject) is None


def test_a_command_line_without_a_person_or_with_a_wrong_id_is_refused() -> None:
    assert subject_of(["anna"], [ONE.upper()]) == Subject(frozenset(["anna"]), frozenset([ONE]))
    with pytest.raises(UserError, match="no person or photo named"):
        subject_of([], [])
    with pytest.raises(UserError, match=r"--image-id 1\.jpg: expected the 64 hexadecimal digits"):
        subject_of([], ["1.jpg"])
