"""A person is forgotten: their bytes are in no file of project, cache and remote, and nobody else is lost."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.cli import main
from pipelines.core.records import DATASET_SCHEMA, read_rows
from pipelines.versions.dataset_version import checkout_version, current_version
from tests.processes import git

from .conftest import Home, call

# A dozen DVC commands: seconds on a free machine, minutes on a busy one.
pytestmark = pytest.mark.timeout(1800)


def files_with(folders: list[Path], pieces: list[bytes]) -> list[str]:
    """Every file that has one of the pieces anywhere, by the plainest search there is."""
    return sorted(
        str(file)
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink() and any(piece in file.read_bytes() for piece in pieces)
    )


def pieces_of(bodies: list[bytes]) -> list[bytes]:
    """Whole pictures and three distinctive parts of each, plain and as a page holds them."""
    parts = [body[len(body) * at // 8 :][:40] for body in bodies for at in (2, 4, 6)]
    pages = [base64.b64encode(body)[len(body) // 2 :][:60] for body in bodies]
    return [*bodies, *parts, *pages]


def processed_of(home: Home, person: str) -> list[bytes]:
    rows = [
        row for file in (home.root / "data" / "processed").glob("*.parquet") for row in pq.read_table(file).to_pylist()
    ]
    return [row["image"] for row in rows if row["identity"] == person]


def command(root: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Run a command as the shell would, in this process and with nothing of the environment that leads elsewhere."""
    out, err, ended = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(root)
        for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME", "DYNAMICID_RUNS"):
            patch.delenv(name, raising=False)
        try:
            main([*arguments])
        except SystemExit as exit:
            ended = int(exit.code or 0)
    assert ended == code, err.getvalue()
    return out.getvalue(), err.getvalue()


def record(home: Home) -> dict[str, str]:
    """Record the evaluation and a registered model as the line does; return the ids of the runs."""
    from mlflow.tracking import MlflowClient

    from pipelines.registry.lineage import lineage_of
    from pipelines.registry.settings import connect

    connect(home.root)
    client = MlflowClient()
    ids = {}
    for name, tags in (
        ("on_them", lineage_of(home.root, "evaluate").tags()),
        ("other", {"dynamicid.dataset_md5": "0"}),
    ):
        run = client.create_run(client.get_experiment_by_name("dynamicid").experiment_id, tags=tags)
        page = home.root / "reports" / "index.html" if name == "on_them" else home.root / "report.py"
        client.log_artifact(run.info.run_id, str(page))
        ids[name] = run.info.run_id
        if name == "on_them":
            client.create_registered_model("dynamicid")
            client.create_model_version("dynamicid", run.info.artifact_uri, run_id=run.info.run_id, tags=tags)
            client.set_registered_model_alias("dynamicid", "champion", "1")
    return ids


@dataclass
class Story:
    """What was there before, what the command said, and the home after it."""

    home: Home
    told: dict[str, Any] = field(default_factory=dict)
    stderr: str = ""
    before: list[str] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story(make: Callable[[Path], Home], tmp_path_factory: pytest.TempPathFactory) -> Story:
    home = make(tmp_path_factory.mktemp("forget"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("DYNAMICID_HOME", raising=False)
        found = Story(home, runs=record(home))
    found.pieces = pieces_of([*home.of("anna"), *processed_of(home, "anna")])
    found.before = files_with([home.root, home.remote], found.pieces)
    told, found.stderr = command(home.root, "forget", "--identity", "anna", "--delete-artefacts")
    found.told = json.loads(told)
    return found


def test_they_were_in_every_place_before(story: Story) -> None:
    places = "\n".join(story.before)
    for place in (
        "/home/data/faces/",
        "/home/data/processed/",
        "/home/reports/index.html",
        "/home/.dvc/cache/",
        "/remote/files/",
        "/home/.dynamicid/runs/holds-them/",
        "/home/.dynamicid/preprocess/",
        "/home/.dynamicid/photos/anna/",
        "/home/mlartifacts/",
    ):
        assert place in places


def test_the_bytes_are_in_no_file_of_project_cache_and_remote(story: Story) -> None:
    assert files_with([story.home.root, story.home.remote], story.pieces) == []
    assert story.told["remaining"] == []


def test_embeddings_and_texts_are_gone_from_the_caches(story: Story) -> None:
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
    assert story.told["records"] == 3 + 3


def test_nobody_else_is_lost(story: Story) -> None:
    root = story.home.root
    rows = read_rows(root / "data" / "faces", DATASET_SCHEMA).to_pylist()
    expected = {name: body for name, body in story.home.photos.items() if not name.startswith("anna/")}
    assert {row["file_name"]: row["image"] for row in rows} == expected
    assert all(hashlib.sha256(row["image"]).hexdigest() == row["image_id"] for row in rows)
    names = {
        row["file_name"] for file in (root / "data" / "processed").glob("*") for row in pq.read_table(file).to_pylist()
    }
    assert names == set(expected)
    assert sorted(path.name for path in (root / ".dynamicid" / "runs").iterdir()) == ["holds-nobody"]
    photos = {
        path.relative_to(root / ".dynamicid" / "photos").as_posix() for path in root.glob(".dynamicid/photos/*/*.jpg")
    }
    assert photos == set(expected)


def test_a_new_version_is_made_and_can_be_built_on(story: Story) -> None:
    root = story.home.root
    assert story.told["version"]["tag"] == "faces-v3"
    assert story.told["version"]["rows"] == 4
    assert current_version(root).tag == "faces-v3"
    assert git(root, "status", "--porcelain", "--", "data").strip() == "M data/faces.dvc\n?? data/forgotten.jsonl"
    assert "faces-v3" in git(root, "tag")
    ledger = git(root, "show", "faces-v3:data/forgotten.jsonl")
    assert "anna" not in ledger
    assert not any(hashlib.sha256(body).hexdigest() in ledger for body in story.home.of("anna"))
    call(root, "repro", "-q")
    assert (root / "reports" / "index.html").read_text() == "<!doctype html><p>0 photos</p>"
    call(root, "push", "-q")


def test_an_older_version_comes_back_without_them_and_says_so(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    root = story.home.root
    assert checkout_version(root, "faces-v1").rows == 2
    told = capsys.readouterr().err
    assert "version faces-v1: brought back without what was forgotten since: 3 photos of 1 person on 2" in told
    assert "data/forgotten.jsonl" in told
    rows = read_rows(root / "data" / "faces", DATASET_SCHEMA).to_pylist()
    assert sorted(row["file_name"] for row in rows) == ["bert/1.jpg", "carl/1.jpg"]
    checkout_version(root, "faces-v3")
    assert capsys.readouterr().err == ""
    assert current_version(root).tag == "faces-v3"


def test_a_clone_gets_the_older_version_from_the_remote_and_is_told(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(story.home.root), str(clone))
    checkout_version(clone, "faces-v2")
    assert "3 photos of 1 person" in capsys.readouterr().err
    rows = read_rows(clone / "data" / "faces", DATASET_SCHEMA).to_pylist()
    assert sorted(row["file_name"] for row in rows) == ["bert/1.jpg", "bert/2.jpg", "carl/1.jpg", "dora/1.jpg"]


def test_models_and_artefacts_that_knew_them_are_listed(story: Story) -> None:
    traces = story.told["traces"]
    assert traces["models"] == [
        {"name": "dynamicid", "version": "1", "aliases": ["champion"], "trained_on": False, "evaluated_on": True}
    ]
    assert traces["artefacts"] == [{"run_id": story.runs["on_them"], "stage": "evaluate", "path": "index.html"}]
    assert traces["runs"] == [story.runs["on_them"]]
    assert "model dynamicid version 1 (champion) was evaluated on them" in story.stderr


def test_they_do_not_come_back_with_the_folder_they_came_from(story: Story) -> None:
    story.home.ingest()
    assert current_version(story.home.root).tag == "faces-v3"
    profile = str(story.home.project / "profiles" / "tiny.yaml")
    told, _ = command(story.home.root, "ingest", str(story.home.source), "--no-version", "--params", profile)
    assert json.loads(told)["skipped"] == {"forgotten on request (data/forgotten.jsonl)": 3}


def test_asking_again_says_when_it_was_done(story: Story) -> None:
    _, told = command(story.home.root, "forget", "--identity", "anna", code=2)
    assert "nothing is left to forget: forgotten since: 3 photos of 1 person on 2" in told
    assert "nobody: no such person or photo" in command(story.home.root, "forget", "--identity", "nobody", code=2)[1]
