"""Data in the working tree is rewritten or deleted, unless another process is writing it."""

from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from pipelines.core.errors import StageFailed
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.operations.forgetting import local
from pipelines.operations.forgetting.subject import Subject
from pipelines.versions.workspace import RUNS_VARIABLE, workspaces

ANNA = Subject(frozenset(["anna"]), frozenset())


def table(file: Path, *people: str) -> Path:
    rows = [{"image_id": hashlib.sha256(name.encode()).hexdigest(), "identity": name} for name in people]
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=DATASET_SCHEMA), file)
    return file


def test_datasets_keep_other_rows_and_caches_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = table(tmp_path / "data" / "faces" / "faces-00000.parquet", "anna", "bert")
    alone = table(tmp_path / "data" / "processed" / "part-00000.parquet", "anna")
    other = table(tmp_path / "data" / "mine" / "x.parquet", "anna", "carl")
    cached = table(tmp_path / ".dynamicid" / "preprocess" / "slice.parquet", "anna", "bert")
    kept = table(tmp_path / ".dynamicid" / "preprocess" / "kept.parquet", "bert")
    run = table(tmp_path / ".dynamicid" / "runs" / "one" / "data" / "faces" / "faces-00000.parquet", "anna")
    found = local.find_tables(tmp_path, ANNA)
    assert set(found) == {both, alone, other, cached}
    assert local.clean_tables(tmp_path, found, ANNA) == {"rewritten": 2, "deleted": 2}
    assert pq.read_table(both)["identity"].to_pylist() == ["bert"]
    assert pq.read_table(other)["identity"].to_pylist() == ["carl"]
    assert [file.exists() for file in (alone, cached, kept, run)] == [False, False, True, True]
    assert local.has_data_of(tmp_path / ".dynamicid" / "runs" / "one", ANNA)
    assert not local.has_data_of(tmp_path, ANNA)
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / ".dynamicid" / "runs"))
    assert local.has_data_of(tmp_path / ".dynamicid" / "runs" / "one", ANNA), "one runs folder for all checkouts"


def test_pictures_with_the_bytes_and_pages_with_pictures_are_deleted(tmp_path: Path) -> None:
    photos = tmp_path / ".dynamicid" / "photos"
    photos.mkdir(parents=True)
    for name in ("1.jpg", "2.jpg"):
        (photos / name).write_bytes(name.encode())
        (photos / name).with_suffix(".txt").write_text("a prompt")
    (tmp_path / "1.jpg").write_bytes(b"1.jpg")
    one = Subject(frozenset(), frozenset([hashlib.sha256(b"1.jpg").hexdigest()]))
    assert local.delete_photos(local.find_photos(tmp_path, one)) == 1
    assert sorted(path.name for path in photos.iterdir()) == ["2.jpg", "2.txt"]
    assert (tmp_path / "1.jpg").exists()
    (tmp_path / "reports" / "data_docs").mkdir(parents=True)
    (tmp_path / "reports" / "index.html").write_text('<img src="data:image/png;base64,AA">')
    (tmp_path / "reports" / "data_docs" / "index.html").write_text("<p>counts</p>")
    assert local.delete_reports(tmp_path) == ["reports/index.html"]
    assert (tmp_path / "reports" / "data_docs" / "index.html").exists()


def _hold(lock: Path, ready: object, done: object) -> None:
    with FileLock(lock):
        ready.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "lock", ["preprocess/.lock", "curate/.lock", "resume/train_imr/0123.lock", "runs/one/.dynamicid/preprocess/.lock"]
)
def test_nothing_starts_while_another_process_writes(tmp_path: Path, lock: str) -> None:
    file = tmp_path / ".dynamicid" / lock
    file.parent.mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(file, ready, done))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(StageFailed, match="is at work there"), local.hold_locks(tmp_path, workspaces(tmp_path)):
        pass
    done.set()
    holder.join()
    with local.hold_locks(tmp_path, workspaces(tmp_path)):
        assert file.exists()


def test_the_texts_of_a_photo_go_with_it_in_every_form(tmp_path: Path) -> None:
    own = ("1.jpg", "1.jpg.txt", "1.jpg.json", "1.consent.txt", "1.caption", "2.png", "2.txt")
    others = ("1.left.jpg", "1.left.txt", "11.jpg", "11.txt", "2.jpg", "2.jpg.json", "notes.txt", "list.csv")
    for name in (*own, *others):
        (tmp_path / name).write_bytes(b"x")
    assert local.delete_photos([tmp_path / "1.jpg", tmp_path / "2.png"]) == 2
    kept = {file.name for file in tmp_path.iterdir()}
    assert kept == {*others, "2.txt"}, "2.txt may describe 2.jpg"
