"""A request to forget somebody that is cut off, undone by other means, or cannot reach a place; and shared state."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA, read_rows
from pipelines.operations.forgetting.forget import forget
from pipelines.operations.forgetting.subject import subject_of
from pipelines.versions.forgotten import read_ledger
from pipelines.versions.places import note_copy
from pipelines.versions.state import VARIABLE, shared_state
from tests.pipelines.photos import dataset_row, write_shards

from .conftest import Home
from .searches import command, files_with, pieces_of, processed_of, record

# A dozen DVC commands: seconds on a free machine, minutes on a busy one.
pytestmark = pytest.mark.timeout(1800)

# What a request does, in order; a kill at any of these places must not end it.
STEPS = (
    "stores.rewrite",
    "forgotten.append",
    "local.clean_tables",
    "_new_versions",
    "local.delete_files",
    "records.clean_stores",
    "local.delete_checkpoints",
    "local.delete_drawn",
    "stores.delete",
    "delete_artefacts",
    "end_journal",
)


def test_a_request_that_is_cut_off_anywhere_is_finished_when_it_is_called_again(
    make: Callable[[Path], Home], tmp_path: Path
) -> None:
    """Each call gets a step further than the one before, whose step it repeats, half done."""
    home = make(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        record(home)
    pieces = pieces_of([*home.of("anna"), *processed_of(home, "anna")])
    others = processed_of(home, "bert")
    export = tmp_path / "export"
    shutil.copytree(home.source, export)
    note_copy(home.root, export, "export, variface")
    arguments = ("forget", "--identity", "anna", "--delete-artefacts", "--delete-copies")
    module = "pipelines.operations.forgetting.forget"
    for step in STEPS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"{module}.{step}", cut_off(f"{module}.{step}", half=step == "stores.delete"))
            patch.chdir(home.root)
            with pytest.raises(KeyboardInterrupt):
                forget(home.root, subject_of(["anna"], []), artefacts=True, copies=True)
        if step != "stores.rewrite":
            assert read_ledger(home.root).entry_of("anna") is not None or step == "forgotten.append"
        assert (home.root / ".dynamicid" / "forgetting.json").is_file(), step
    printed, _ = command(home.root, *arguments)
    assert json.loads(printed)["remaining"] == []
    assert not (home.root / ".dynamicid" / "forgetting.json").exists()
    assert files_with([tmp_path / "home", tmp_path / "remote", export], pieces) == []
    assert not export.exists()
    assert files_with([home.root / "data"], [others[0][100:140]]) != []
    assert "nothing is left to forget" in command(home.root, *arguments)[1]


def cut_off(name: str, *, half: bool) -> Callable[..., object]:
    """Return a function in place of `name` that is killed before its work, or in the middle of it."""
    whole = resolve_name(name.replace(".forget.", ".forget:", 1))

    def killed(*arguments: Any, **options: Any) -> object:
        if half:
            found, oids = arguments
            whole(found, set(sorted(oids)[: len(oids) // 2]))
        raise KeyboardInterrupt

    return killed


def test_what_comes_back_is_refused_and_forgotten_again(make: Callable[[Path], Home], tmp_path: Path) -> None:
    """Bytes of a forgotten photo under another name and person, put into the dataset by other means."""
    home = make(tmp_path)
    command(home.root, "forget", "--identity", "anna")
    shard = home.root / "data" / "faces" / "faces-00009.parquet"
    rows = [dataset_row("renamed.jpg", home.of("anna")[0], "carl"), dataset_row("2.jpg", b"other", "carl")]
    write_shards(tmp_path / "rows", DATASET_SCHEMA, [rows])
    shutil.copy(next((tmp_path / "rows").glob("*.parquet")), shard)
    _, refused = command(home.root, "dataset", "publish", code=1)
    assert "1 photo in it forgotten on request" in refused
    command(home.root, "forget", "--again")
    left = read_rows(home.root / "data" / "faces", DATASET_SCHEMA).to_pylist()
    assert {row["file_name"] for row in left if row["identity"] == "carl"} == {"carl/1.jpg", "2.jpg"}
    command(home.root, "dataset", "publish")


def test_a_remote_that_cannot_be_reached_is_named_and_searched_by_the_next_call(
    make: Callable[[Path], Home], tmp_path: Path
) -> None:
    home = make(tmp_path)
    pieces = pieces_of(home.of("anna"))
    away = tmp_path / "unplugged"
    home.remote.rename(away)
    home.remote.write_text("not a folder")
    _, printed = command(home.root, "forget", "--identity", "anna", code=1)
    assert "not finished: remote store" in printed
    assert files_with([home.root], pieces) == []
    assert files_with([away], pieces) != []
    home.remote.unlink()
    away.rename(home.remote)
    command(home.root, "forget", "--identity", "anna")
    assert files_with([home.root, home.remote], pieces) == []
    assert "nothing is left to forget" in command(home.root, "forget", "--identity", "anna")[1]


def test_the_state_that_workspaces_share_is_reached_wherever_it_is(
    make: Callable[[Path], Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, shared = make(tmp_path), tmp_path / "fast disk"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv(VARIABLE, str(shared))
    run = home.root / ".dynamicid" / "runs" / "without-data"
    for name in ("preprocess", "cache", "resume"):
        shutil.move(home.root / ".dynamicid" / name, shared_state(run) / name)
    bucket = shared / "preprocess" / "buckets" / "0.parquet"
    bucket.parent.mkdir()
    os.link(next(home.root.glob("data/processed/*.parquet")), bucket)
    monkeypatch.delenv(VARIABLE)  # the shell in which somebody forgets has never heard of it
    pieces = pieces_of([*home.of("anna"), *processed_of(home, "anna")])
    assert {Path(file).name for file in files_with([shared], pieces)} >= {"anna.arrow", "0.parquet"}
    held = json.loads(command(home.root, "subject", "anna", "--json")[0])
    assert held["places"][str(shared / "preprocess")] == held["places"][str(bucket.parent)] == 1
    report = json.loads(command(home.root, "forget", "--identity", "anna")[0])
    assert files_with([home.root, home.remote, shared], pieces) == []
    assert (report["remaining"], report["records"], report["checkpoints"]) == ([], 3 + 3 + 2 * 3, 1)
    assert (shared / "preprocess" / "bert.arrow").is_file()


def test_records_of_photos_that_only_a_workspace_trains_on_stay(make: Callable[[Path], Home], tmp_path: Path) -> None:
    from model.training.cache import RecordStore

    home = make(tmp_path)
    run = home.root / ".dynamicid" / "runs" / "without-data"
    kept = read_rows(home.root / "data" / "processed", PROCESSED_SCHEMA).to_pylist()
    write_shards(run / "data" / "processed", PROCESSED_SCHEMA, [[row for row in kept if row["identity"] == "bert"]])
    command(home.root, "forget", "--identity", "carl")
    shutil.rmtree(home.root / "data" / "processed")
    command(home.root, "forget", "--identity", "dora")
    assert len(RecordStore(home.root / ".dynamicid" / "cache" / "faces" / "0", (512,), "float32")) == 2
