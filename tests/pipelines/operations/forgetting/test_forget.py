"""Forgetting a person removes their bytes from every file of project, cache and remote, and no other data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.core.row_schemas import DATASET_SCHEMA, read_rows
from pipelines.evaluation.belonging import metrics_mark
from pipelines.versions.dataset_version import checkout_version, current_version
from tests.processes import git

from .conftest import Home, call
from .searches import command, files_with, pieces_of, processed_of, record

# A dozen DVC commands: seconds on a free machine, minutes on a busy one.
pytestmark = pytest.mark.timeout(1800)


@dataclass
class Forgotten:
    """The project after the command, the command's output, and the files with Anna's data before it."""

    home: Home
    report: dict[str, Any] = field(default_factory=dict)
    stderr: str = ""
    before: list[str] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story(make: Callable[[Path], Home], tmp_path_factory: pytest.TempPathFactory) -> Forgotten:
    home = make(tmp_path_factory.mktemp("forget"))
    damaged = home.root / ".dynamicid" / "preprocess" / "damaged.arrow"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("DYNAMICID_HOME", raising=False)
        found = Forgotten(home, runs=record(home))
    found.pieces = pieces_of([*home.of("anna"), *processed_of(home, "anna")])
    damaged.write_bytes(b"ARROW1\0\0 damaged")
    found.before = files_with([home.root, home.remote], found.pieces)
    printed, found.stderr = command(home.root, "forget", "--identity", "anna", "--delete-artefacts")
    found.report = json.loads(printed)
    return found


def test_the_data_was_in_every_place_before(story: Forgotten) -> None:
    places = "\n".join(story.before)
    for place in (
        "/home/data/faces/",
        "/home/data/processed/",
        "/home/reports/index.html",
        "/home/.dvc/cache/",
        "/remote/files/",
        "/home/.dynamicid/runs/with-data/",
        "/home/.dynamicid/preprocess/",
        "/home/.dynamicid/photos/anna/",
        "/home/mlartifacts/",
    ):
        assert place in places


def test_the_bytes_are_in_no_file_of_project_cache_and_remote(story: Forgotten) -> None:
    assert files_with([story.home.root, story.home.remote], story.pieces) == []
    assert story.report["remaining"] == []


def test_a_damaged_slice_that_might_hold_the_person_is_deleted_as_it_is_made_again(story: Forgotten) -> None:
    assert not (story.home.root / ".dynamicid" / "preprocess" / "damaged.arrow").exists()
    assert "damaged.arrow" not in story.stderr
    assert story.report["beyond"] == []


def test_embeddings_and_texts_are_gone_from_the_caches(story: Forgotten) -> None:
    import numpy as np

    from model.training.cache import RecordStore, text_keys

    cache = story.home.root / ".dynamicid" / "cache"
    assert len(RecordStore(cache / "faces" / "0", (512,), "float32")) == 4
    texts = RecordStore(cache / "text_states" / "0", (4,))
    theirs = text_keys([f"a photo called anna/{number}.jpg" for number in (1, 2, 3)])
    assert len(texts.missing(theirs)) == 3
    kept = ["", *(f"a photo called {name}" for name in ("bert/1.jpg", "bert/2.jpg", "carl/1.jpg", "dora/1.jpg"))]
    assert len(texts[texts.rows(text_keys(kept))]) == 5
    assert np.isfinite(texts[texts.rows(text_keys(kept))]).all()
    assert story.report["records"] == 3 + 3 + 2 * 3


def test_caches_of_bases_are_cleaned_and_bases_trained_on_the_person_are_named(story: Forgotten) -> None:
    from model.training.cache import RecordStore

    root = story.home.root
    for work in (root / ".dynamicid" / "foundation" / "photographs", root.parent / "base-work"):
        assert len(RecordStore(work / "cache" / "pixels" / "0", (2,), "uint8")) == 4, work
    assert story.report["bases"] == ["weights/ours"]
    assert "base in weights/ours was trained on them: train another" in story.stderr


def test_all_that_evaluations_drew_is_gone_as_it_may_show_anybody(story: Forgotten) -> None:
    folders = [path for path in story.home.root.rglob("evaluation") if path.parent.name == ".dynamicid"]
    assert len(folders) == 2, "the checkout's and that of the workspace that stays"
    assert [file.name for folder in folders for file in folder.iterdir() if file.name != ".lock"] == []
    assert story.report["drawn"] == 2
    assert "files of drawn pictures: 2" in story.stderr


def test_no_other_data_is_lost(story: Forgotten) -> None:
    root = story.home.root
    rows = read_rows(root / "data" / "faces", DATASET_SCHEMA).to_pylist()
    expected = {name: body for name, body in story.home.photos.items() if not name.startswith("anna/")}
    assert {row["file_name"]: row["image"] for row in rows} == expected
    assert all(hashlib.sha256(row["image"]).hexdigest() == row["image_id"] for row in rows)
    names = {
        row["file_name"] for file in (root / "data" / "processed").glob("*") for row in pq.read_table(file).to_pylist()
    }
    assert names == set(expected)
    assert sorted(path.name for path in (root / ".dynamicid" / "runs").iterdir()) == ["without-data"]
    photos = {
        path.relative_to(root / ".dynamicid" / "photos").as_posix() for path in root.glob(".dynamicid/photos/*/*.jpg")
    }
    assert photos == set(expected)


def test_a_new_version_is_made_and_can_be_built_on(story: Forgotten) -> None:
    root = story.home.root
    assert story.report["version"]["tag"] == "faces-v3"
    assert story.report["version"]["rows"] == 4
    assert current_version(root).tag == "faces-v3"
    assert git(root, "status", "--porcelain", "--", "data").strip() == "M data/faces.dvc\n?? data/forgotten.jsonl"
    assert "faces-v3" in git(root, "tag")
    ledger = git(root, "show", "faces-v3:data/forgotten.jsonl")
    assert "anna" not in ledger
    assert not any(hashlib.sha256(body).hexdigest() in ledger for body in story.home.of("anna"))
    call(root, "repro", "-q")
    assert (root / "reports" / "index.html").read_text() == "<!doctype html><p>0 photos</p>"
    call(root, "push", "-q")


def test_an_older_version_is_restored_without_the_data_and_says_so(
    story: Forgotten, capsys: pytest.CaptureFixture[str]
) -> None:
    root = story.home.root
    assert checkout_version(root, "faces-v1").rows == 2
    printed = capsys.readouterr().err
    assert "version faces-v1: brought back without what was forgotten since: 3 photos of 1 person on 2" in printed
    assert "data/forgotten.jsonl" in printed
    rows = read_rows(root / "data" / "faces", DATASET_SCHEMA).to_pylist()
    assert sorted(row["file_name"] for row in rows) == ["bert/1.jpg", "carl/1.jpg"]
    checkout_version(root, "faces-v3")
    assert capsys.readouterr().err == ""
    assert current_version(root).tag == "faces-v3"


def test_a_clone_gets_the_older_version_without_the_data_and_a_message(
    story: Forgotten, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(story.home.root), str(clone))
    checkout_version(clone, "faces-v2")
    assert "3 photos of 1 person" in capsys.readouterr().err
    rows = read_rows(clone / "data" / "faces", DATASET_SCHEMA).to_pylist()
    assert sorted(row["file_name"] for row in rows) == ["bert/1.jpg", "bert/2.jpg", "carl/1.jpg", "dora/1.jpg"]


def test_models_and_artefacts_with_the_data_are_listed(story: Forgotten) -> None:
    traces = story.report["traces"]
    assert traces["models"] == [
        {"name": "dynamicid", "version": "1", "aliases": ["champion"], "trained_on": False, "evaluated_on": True}
    ]
    assert traces["artefacts"] == [{"run_id": story.runs["with_anna"], "stage": "evaluate", "path": "index.html"}]
    assert traces["runs"] == [story.runs["with_anna"]]
    assert "model dynamicid version 1 (champion) was evaluated on them" in story.stderr


def test_ingesting_the_source_again_skips_the_forgotten_photos(story: Forgotten) -> None:
    story.home.ingest()
    assert current_version(story.home.root).tag == "faces-v3"
    profile = str(story.home.project / "profiles" / "tiny.yaml")
    printed, _ = command(story.home.root, "ingest", str(story.home.source), "--no-version", "--params", profile)
    assert json.loads(printed)["skipped"] == {"forgotten on request (data/forgotten.jsonl)": 3}


def test_a_second_call_reports_when_it_was_done(story: Forgotten) -> None:
    _, printed = command(story.home.root, "forget", "--identity", "anna")
    assert "nothing is left to forget: forgotten since: 3 photos of 1 person on 2" in printed
    assert "eve: no such person or photo" in command(story.home.root, "forget", "--identity", "eve", code=2)[1]
    # Nobody keeps whose split she was in: neither that she was evaluated nor the contrary is stated.
    uses = "perhaps trained or evaluated (their split is unknown)"
    assert f"model dynamicid version 1 (champion) was {uses} on them" in printed


def test_a_name_that_nobody_has_is_refused_with_the_nearest(story: Forgotten) -> None:
    root = story.home.root
    before = (root / "data" / "forgotten.jsonl").read_bytes()
    for arguments, message in (
        (
            ("forget", "--identity", "Bert"),
            "Bert: no such person or photo in the dataset, its cache or its remotes; did",
        ),
        (("forget", "--identity", "brt"), "did you mean bert?; nothing was changed"),
        (("subject", "Bert"), "Bert: nothing of such a person or photo is held here; did you mean bert?"),
        (("forget", "--identity", "bert", "--identity", "Bertt"), "Bertt: no such person here; did you mean bert?"),
        (("subject", "bert", "Bertt"), "Bertt: no such person here; did you mean bert?"),
    ):
        assert message in command(root, *arguments, code=2)[1]
    assert (root / "data" / "forgotten.jsonl").read_bytes() == before
    assert command(root, "subject", "bert", "anna")[1], "anna was forgotten, and is known by that"


def test_a_page_shows_a_person_what_is_held_of_them(story: Forgotten, tmp_path: Path) -> None:
    root, page = story.home.root, tmp_path / "bert.html"
    held = json.loads(command(root, "subject", "bert", "--json", "--out", str(page))[0])
    assert [photo["file_name"] for photo in held["photos"]] == ["bert/1.jpg", "bert/2.jpg"]
    assert {photo["split"] for photo in held["photos"]} == {"train"}
    assert "faces-v3" in held["versions"]
    assert held["places"]["data/faces"] >= 1
    assert held["places"]["data/processed"] >= 1
    assert held["places"][".dynamicid/preprocess"] == 1
    assert held["places"][".dynamicid/photos/bert"] == 4, "two photos, each with its text"
    text = page.read_text()
    assert "a photo called bert/2.jpg" in text
    assert "anna" not in text
    assert held["bases"] == ["weights/ours", "weights/second"]
    assert "base in weights/second" in text
    assert text.count("data:image/jpeg;base64,") == 2
    assert not re.search(r"(src|href)=.(?!data:)", text), "it is self-contained"
    printed = command(root, "subject", "bert")[1]
    assert "photos: 2" in printed
    assert f"copy: {page} (page of a subject)" in printed
    assert "photos: 0" in command(root, "subject", "anna")[1]
    assert "eve: nothing of such a person" in command(root, "subject", "eve", code=2)[1]


def test_pages_of_rows_are_deleted_also_for_people_who_are_in_training(story: Forgotten) -> None:
    """Their pictures are encoded again, so that no search for bytes finds them."""
    root = story.home.root
    page, evaluation = root / "reports" / "browse" / "faces-v1-faces-v2.html", root / "reports" / "evaluation.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text('<img src="data:image/jpeg;base64,AA">')
    evaluation.write_text(f'{metrics_mark(b"{}")}<img src="data:image/jpeg;base64,AA">')
    held, _ = command(root, "subject", "bert", "--json")
    assert "reports/browse/faces-v1-faces-v2.html (may show them)" in json.loads(held)["places"]
    printed, _ = command(root, "forget", "--identity", "bert")
    assert "reports/browse/faces-v1-faces-v2.html" in json.loads(printed)["reports"]
    assert not page.exists()
    assert evaluation.exists(), "it shows nobody who is in training"
