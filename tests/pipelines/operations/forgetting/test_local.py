"""Data in the working tree is rewritten or deleted, unless another process is writing it."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from pipelines.core.errors import StageFailed
from pipelines.core.execution import VARIABLE, note_samples
from pipelines.core.locks import WORKSPACE, staying
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.evaluation.belonging import metrics_mark
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
    found = local.find_tables(tmp_path, ANNA, set())
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
    assert local.delete_files(tmp_path, local.find_files(tmp_path, one)) == 1
    assert sorted(path.name for path in photos.iterdir()) == ["2.jpg", "2.txt"]
    assert (tmp_path / "1.jpg").exists()
    (tmp_path / "reports" / "data_docs").mkdir(parents=True)
    (tmp_path / "reports" / "index.html").write_text('<img src="data:image/png;base64,AA">')
    (tmp_path / "reports" / "data_docs" / "index.html").write_text("<p>counts</p>")
    (tmp_path / "reports" / "drift.html").write_text('<img src="data:image/svg+xml;base64,AA">')
    mark = metrics_mark(b"{}")
    (tmp_path / "reports" / "evaluation.html").write_text(f'{mark}<img src="data:image/jpeg;base64,AA">')
    assert local.delete_reports(tmp_path, evaluations=False) == ["reports/index.html"], "it may show anybody"
    assert local.delete_reports(tmp_path, evaluations=True) == ["reports/evaluation.html"]
    left = sorted(page.relative_to(tmp_path / "reports").as_posix() for page in (tmp_path / "reports").rglob("*.html"))
    assert left == ["data_docs/index.html", "drift.html"]


def test_what_comparisons_trained_and_drew_is_deleted(tmp_path: Path) -> None:
    top = tmp_path / ".dynamicid" / "compare"
    write(top, {"trained/0/cost.json": "{}", "evaluated/1/kept.json": "{}", ".lock": ""})
    assert local.delete_drawn(tmp_path) == 2
    assert [path.name for path in top.rglob("*") if path.is_file()] == [".lock"]


def _hold(lock: Path, ready: object, done: object) -> None:
    with FileLock(lock):
        ready.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "lock",
    [
        "preprocess/.lock",
        "curate/.lock",
        "cache/.lock",
        "evaluation/.lock",
        "compare/.lock",
        "resume/train_imr/0123.lock",
        "runs/one/.dynamicid/preprocess/.lock",
    ],
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


def test_nothing_is_forgotten_while_a_command_is_at_work_in_a_workspace(tmp_path: Path) -> None:
    run = tmp_path / ".dynamicid" / "runs" / "one"
    (run / WORKSPACE).parent.mkdir(parents=True)
    (run / WORKSPACE).write_text("{}")
    refused = pytest.raises(StageFailed, match=r"workspace\.lock: a command is at work there; wait for it to end")
    with staying(run), refused, local.hold_locks(tmp_path, workspaces(tmp_path)):
        pass
    gone = pytest.raises(StageFailed, match="is removing this workspace")
    with local.hold_locks(tmp_path, workspaces(tmp_path)), gone, staying(run):
        pass


def write(folder: Path, files: dict[str, bytes | str]) -> None:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body if isinstance(body, bytes) else body.encode())


def names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def of_bytes(*bodies: bytes) -> Subject:
    return Subject(frozenset(), frozenset(hashlib.sha256(body).hexdigest() for body in bodies))


def test_the_texts_of_a_photo_go_with_it_in_every_form(tmp_path: Path) -> None:
    photos = tmp_path / ".dynamicid" / "photos"
    own = ("1.jpg", "1.jpg.txt", "1.jpg.json", "1.consent.txt", "1.caption", "1.xmp", "1.npy", "2.png")
    others = (
        "1.left.jpg",
        "1.left.txt",
        "11.jpg",
        "11.txt",
        "2.jpg",
        "2.jpg.json",
        "2.txt",
        "notes.txt",
        ".lock",
        "list.csv",
    )
    write(photos, {name: name for name in (*own, *others)})
    found = local.find_files(tmp_path, of_bytes(b"1.jpg", b"2.png"))
    assert found.shared == {photos / "2.txt"}, "it may describe 2.jpg"
    assert local.delete_files(tmp_path, found) == 2
    assert names(photos) == {*others}


def test_a_landmark_picture_goes_with_its_photo(tmp_path: Path) -> None:
    photos = tmp_path / ".dynamicid" / "photos"
    write(photos, {f"{stem}.{suffix}": stem + suffix for stem in "12" for suffix in ("jpg", "png", "pt", "txt")})
    local.delete_files(tmp_path, local.find_files(tmp_path, of_bytes(b"1jpg")))
    assert names(photos) == {"2.jpg", "2.png", "2.pt", "2.txt"}


def test_what_came_with_a_photo_that_was_set_aside_goes_with_it(tmp_path: Path) -> None:
    inbox, runs = tmp_path / ".dynamicid" / "inbox", ("r", "other")
    write(
        inbox,
        {
            "_bad/r/monday/1.jpg": b"cut",
            "_bad/r/monday/anna/2.jpg": b"too large",
            "_bad/r.json": json.dumps(
                dict.fromkeys(("monday/1.jpg", "monday/anna/2.jpg", "monday/3.jpg"), "unreadable")
            ),
            "_done/r/monday/1.json": '{"identity": "Anna"}',
            "_done/r/monday/3.json": '{"identity": "bert"}',
            "_done/r/monday/4.jpg": b"4",
            "_done/r/monday/anna/2.json": '{"consent": "granted"}',
            "_done/r/monday/anna/about.pdf": "%PDF",
            "_taken/r/monday/5.jpg": b"5",
            "_taken/r/monday/5.jpg.json": '{"person": "anna"}',
            "_taken/r/monday/6.meta.json": '{"file_name": "6.jpg", "person": "anna"}',
            **{f"_done/{run}/tuesday/1.json": '{"prompt": "of another photo"}' for run in runs},
        },
    )
    found = local.find_files(tmp_path, Subject(frozenset(["anna"]), frozenset([hashlib.sha256(b"cut").hexdigest()])))
    assert found.shared == set()
    assert local.delete_files(tmp_path, found) == 3
    kept = {"_done/r/monday/3.json", "_done/r/monday/4.jpg", *(f"_done/{run}/tuesday/1.json" for run in runs)}
    assert names(inbox) == {"_bad/r.json", *kept}
    assert json.loads((inbox / "_bad/r.json").read_text()) == {"monday/3.jpg": "unreadable"}
    assert not any("anna" in path.name for path in inbox.rglob("*")), "nor a folder of the name"


def test_a_list_of_bad_files_that_is_damaged_is_named(tmp_path: Path) -> None:
    bad = tmp_path / ".dynamicid" / "inbox" / "_bad"
    write(bad, {"r.json": '{"monday/anna/1.jpg": "cut', "s.json": "[1, 2]"})
    assert local.find_files(tmp_path, ANNA).unread == {bad / "r.json", bad / "s.json"}
    local.delete_files(tmp_path, local.find_files(tmp_path, ANNA))
    assert names(bad) == {"r.json", "s.json"}


@pytest.mark.parametrize("place", ["_done/r/monday", "monday"])
def test_tables_that_also_name_others_are_shared_and_those_of_one_person_are_not(tmp_path: Path, place: str) -> None:
    inbox = tmp_path / ".dynamicid" / "inbox"
    both = [{"file_name": "x/1.jpg", "identity": "anna"}, {"file_name": "x/2.jpg", "identity": "bert"}]
    write(
        inbox / place,
        {
            "x/1.jpg": b"1",
            "x/2.jpg": b"2",
            "both.jsonl": "".join(json.dumps(entry) + "\n" for entry in both),
            "both.csv": "file_name,text\nx/1.jpg,a\nx/2.jpg,b\n",
            "gone.csv": "file_name,identity\nx/7.jpg,anna\nx/8.jpg,bert\n",
            "own.csv": "file_name,identity\nx/1.jpg,anna\n",
            "other.json": '[{"file_name": "x/2.jpg", "identity": "joanna"}]',
        },
    )
    table(inbox / place / "rows.parquet", "anna", "bert")
    found = local.find_files(tmp_path, ANNA)
    assert {file.name for file in found.shared} == {"both.jsonl", "both.csv", "gone.csv", "rows.parquet"}
    assert local.find_tables(tmp_path, ANNA, set()) == {}, "other people's rows in an inbox stay"
    local.delete_files(tmp_path, found)
    assert names(inbox / place) == {"x/2.jpg", "other.json", *(file.name for file in found.shared)}


@pytest.mark.parametrize("columns", [{"image_id": ["0" * 64, "1" * 64], "identity": ["anna", "bob"]}, {"x": [1]}])
def test_a_damaged_table_in_an_inbox_stops_no_request(tmp_path: Path, columns: dict[str, list[object]]) -> None:
    """Whatever byte was changed: it is searched, or named as unread."""
    file = tmp_path / ".dynamicid" / "inbox" / "_done" / "r" / "monday" / "a.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), file)
    raw = file.read_bytes()
    answers = []
    for place in range(0, len(raw), 5):
        file.write_bytes(raw[:place] + bytes([raw[place] ^ 0x80]) + raw[place + 1 :])
        found = local.find_files(tmp_path, ANNA)
        answers.append((bool(found.shared), bool(found.unread)))
    assert (False, True) in answers, "some damage is named"
    assert ("identity" in columns) is ((True, False) in answers), "and most does not hide her"


def test_a_damaged_table_of_the_checkout_is_named_and_hides_nobody(tmp_path: Path) -> None:
    """Whatever byte was changed: her row is found, or the table is named as unread."""
    file = table(tmp_path / "data" / "faces" / "faces-00000.parquet", "anna", "bert")
    raw, answers = file.read_bytes(), []
    for place in range(4, len(raw), 29):
        file.write_bytes(raw[:place] + bytes([raw[place] ^ 0x80]) + raw[place + 1 :])
        unread: set[Path] = set()
        answers.append((bool(local.find_tables(tmp_path, ANNA, unread)), bool(unread)))
    assert (True, False) in answers
    assert (False, True) in answers


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tgz", "tar.xz", "zip"])
def test_archives_in_an_inbox_are_found_by_their_photos(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / ".dynamicid" / "inbox" / "_done" / "r" / "monday" / f"faces.{kind}"
    archive.parent.mkdir(parents=True)
    members = tmp_path / "members"
    write(members, {"1.jpg": b"\xff\xd8\xff1", "1.json": '{"identity": "anna"}', "2.jpg": b"\xff\xd8\xff2"})
    shutil.make_archive(
        str(tmp_path / "made"), {"zip": "zip", "tar": "tar", "tar.xz": "xztar"}.get(kind, "gztar"), members
    )
    next(tmp_path.glob("made.*")).rename(archive)
    assert local.find_files(tmp_path, of_bytes(b"\xff\xd8\xff1")).shared == {archive}
    assert local.find_files(tmp_path, of_bytes(b"\xff\xd8\xff3")).shared == set()
    by_name = set() if kind == "zip" else {archive}
    assert local.find_files(tmp_path, ANNA).shared == by_name, "labels in a zip are not read by ingest either"
    archive.write_bytes(b"7z\xbc\xaf\x27\x1c" + archive.read_bytes())
    assert local.find_files(tmp_path, ANNA).unread == {archive}


def test_sample_pictures_of_trainings_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dynamicid" / "executions").mkdir(parents=True)
    monkeypatch.setenv(VARIABLE, str(tmp_path / ".dynamicid" / "executions" / "train_imr.jsonl"))
    note_samples(40, np.zeros((4, 4, 3), np.uint8))
    (picture,) = tmp_path.rglob("step-*.png")
    assert local.delete_reports(tmp_path, evaluations=False) == [picture.relative_to(tmp_path).as_posix()]
    assert not picture.exists()
