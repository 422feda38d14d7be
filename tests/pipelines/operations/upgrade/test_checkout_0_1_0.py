"""A checkout, a registry and a backup that release 0.1.0 made work after an upgrade.

`tests/fixtures/make_checkout_0_1_0.py` made the archive with the commands of that release (commit c077bd9).
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines.core.params import load_params
from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA, read_rows
from pipelines.data.training_data import read_photos
from pipelines.versions.forgotten import read_ledger
from pipelines.versions.lock import hashes, read_lock
from tests.processes import commit_all, dvc, dynamicid, git

ARCHIVE = Path(__file__).parents[3] / "fixtures" / "checkout_0_1_0.tar.xz"
# Where the archive's files were made: MLflow's database names it.
MADE_AT = "/tmp/dynamicid_0_1_0/checkout"
ELSEWHERE = ("MLFLOW_TRACKING_URI", "DYNAMICID_")
# A processor of another kind rounds differently; another model gives quite another picture.
ROUNDING = 2


@dataclass(frozen=True)
class Old:
    """The checkout with the new code, the backup, and what the old commands printed."""

    home: Path
    backup: Path
    facts: dict[str, Any]

    def call(self, *arguments: str | Path, code: int = 0) -> Any:
        return dynamicid(*arguments, cwd=self.home, without=ELSEWHERE, code=code)


def _link(source: str, target: str) -> None:
    # Weights, which nobody writes to.
    (os.link if source.endswith((".safetensors", ".onnx")) else shutil.copy2)(source, target)


def _unpack(folder: Path, checkout: Path) -> None:
    """Unpack the archive and bring its code up to date, as `git pull` does; `params.yaml` is the team's."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    home = folder / "checkout"
    git(home, "init", "-q", "-b", "main")
    git(home, "fetch", "-q", str(folder / "backup" / "refs.bundle"), "refs/tags/*:refs/tags/*")
    git(home, "reset", "-q", f"{git(home, 'tag').split()[0]}^")
    (home / ".git" / "info" / "exclude").write_text("/weights/\n/exports/\n")
    shutil.copytree(
        checkout,
        home,
        dirs_exist_ok=True,
        copy_function=_link,
        ignore=lambda place, names: {".git", "params.yaml"} & set(names) if Path(place) == checkout else set(),
    )
    copies = home / ".dynamicid" / "copies.jsonl"
    copies.write_text(copies.read_text().replace(MADE_AT, str(home)))
    commit_all(home, "Upgrade the program")


@pytest.fixture(scope="module")
def unpacked(once: Callable[[str, Callable[[Path], object]], Path], checkout: Path) -> Path:
    return once("checkout_0_1_0", lambda folder: _unpack(folder, checkout))


def _copy(unpacked: Path, folder: Path) -> Old:
    shutil.copytree(unpacked, folder, symlinks=True, copy_function=_link)
    copies = folder / "checkout" / ".dynamicid" / "copies.jsonl"
    copies.write_text(copies.read_text().replace(str(unpacked), str(folder)))
    return Old(folder / "checkout", folder / "backup", json.loads((folder / "facts.json").read_text()))


@pytest.fixture
def old(unpacked: Path, tmp_path: Path) -> Old:
    """The checkout before the upgrade."""
    return _copy(unpacked, tmp_path / "old")


@pytest.fixture(scope="module")
def upgraded(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Old:
    """The checkout after the upgrade; tests that write to it leave what others read as it is."""
    made = _copy(unpacked, tmp_path_factory.mktemp("upgraded") / "old")
    made.call("upgrade", "--apply")
    return made


def pixels(picture: bytes | Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture), np.int16)


def test_a_dry_run_names_every_kind_of_file_and_changes_nothing(old: Old) -> None:
    before = git(old.home, "status", "--porcelain"), (old.home / "mlflow.db").read_bytes()
    items = json.loads(old.call("upgrade").stdout)["items"]
    assert {item["format"] for item in items} == {
        *("parameters", "a dataset", "processed rows", "results of preprocessing", "a cache of records"),
        *("a training checkpoint", "an adapter", "a tracking database", "an export", "the list of the forgotten"),
    }
    assert {item["place"] for item in items if item["change"]} == {"params.yaml", "profiles/team.yaml", "mlflow.db"}
    assert all(item["version"] == 1 for item in items if not item["place"].startswith("profiles/"))
    assert (git(old.home, "status", "--porcelain"), (old.home / "mlflow.db").read_bytes()) == before


def test_parameters_do_what_they_did_and_keep_their_comments(old: Old, upgraded: Old) -> None:
    for name in ("params.yaml", "profiles/team.yaml"):
        assert load_params(upgraded.home / name) == load_params(old.home / name)
    text = (upgraded.home / "params.yaml").read_text()
    assert "  steps: 6  # a team's own note\n" in text
    written, given = yaml.safe_load(text), yaml.safe_load((old.home / "params.yaml").read_text())
    assert given["rights"]["consent"]["allow"] == []
    assert written["rights"]["consent"] == {
        **given["rights"]["consent"],
        "allow": ["granted", "given", "agreed", "consented"],
        "unknown": "allow",
    }
    for tree in (written, given):
        assert tree["evaluate"].pop("judges")["recogniser"]  # each judge has a section of its own since
    # Pictures of two people are one of several numbers since.
    assert written["evaluate"].pop("several_people")["two"] == given["evaluate"].pop("pairs")
    assert {key: written[key] for key in ("evaluate", "train_anchoring", "register")} == {
        key: given[key] for key in ("evaluate", "train_anchoring", "register")
    }


def test_a_second_upgrade_has_nothing_to_do(upgraded: Old) -> None:
    again = upgraded.call("upgrade", "--apply")
    assert json.loads(again.stdout)["applied"] is False
    assert len(list((upgraded.home / ".dynamicid" / "before_upgrade").iterdir())) == 1


def test_dvc_sees_that_data_and_results_are_unchanged(upgraded: Old) -> None:
    status = json.loads(dvc(upgraded.home, "status", "--json"))
    assert "data/faces.dvc" not in status
    # What the lock of the old release does not have is new, not changed.
    lock = read_lock(upgraded.home)

    def changed(kind: str) -> set[str]:
        return {
            path
            for stage, changes in status.items()
            for change in changes
            if isinstance(change, dict)
            for path in change.get(f"changed {kind}", {}).keys() & hashes(lock[stage], kind).keys()
        }

    assert not changed("outs")
    deps = changed("deps")
    assert not {path for path in deps if not path.startswith(("pipelines/", "model/")) or "weights" in path}


def test_rows_and_the_forgotten_are_read(upgraded: Old) -> None:
    faces, processed = upgraded.home / "data" / "faces", upgraded.home / "data" / "processed"
    people = set(read_rows(faces, DATASET_SCHEMA, ["identity"])["identity"].to_pylist())
    assert people == {f"person_{number:05d}" for number in range(6)}
    assert read_rows(processed, PROCESSED_SCHEMA).num_rows == read_rows(faces, DATASET_SCHEMA).num_rows == 72
    assert len(read_photos(processed, "train")) > 0
    forgotten = read_ledger(upgraded.home)
    assert forgotten.entry_of(upgraded.facts["forgotten"]) is not None
    assert all(forgotten.entry_of(name) is None for name in people)


def test_the_registered_version_draws_the_same_picture(upgraded: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    import pandas as pd

    from pipelines.registry.registry import CHAMPION, champion_of, open_registry

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(upgraded.home)
    version = champion_of(open_registry(upgraded.home), "dynamicid")
    assert str(version.version) == upgraded.facts["registered"]["version"]
    model = mlflow.pyfunc.load_model(f"models:/dynamicid@{CHAMPION}")
    row = {
        "references": [base64.b64encode(Path("exports/reference.jpg").read_bytes()).decode()],
        "prompt": upgraded.facts["prompt"],
        "face_prompts": ["happy"],
        "seed": 0,
    }
    drawn = pixels(base64.b64decode(model.predict(pd.DataFrame([row]))["image"][0]))
    assert np.abs(drawn - pixels(Path("exports/picture.png"))).max() <= ROUNDING


def test_the_trained_adapter_draws_the_same_picture(upgraded: Old, tmp_path: Path) -> None:
    request = ("--reference", "exports/reference.jpg", "--prompt", upgraded.facts["prompt"], "--face-prompt", "happy")
    upgraded.call("generate", *request, "--out", tmp_path / "new.png")
    difference = pixels(tmp_path / "new.png") - pixels(upgraded.home / "exports" / "picture.png")
    assert np.abs(difference).max() <= ROUNDING


def test_a_killed_training_resumes_from_its_old_state(upgraded: Old, tmp_path: Path) -> None:
    steps = ("--set", "train_anchoring.seed=7", "--set", "train_anchoring.steps=40")
    done = upgraded.call("train-anchoring", *steps, "--out", tmp_path / "adapter", "--reports", tmp_path / "reports")
    assert "resumed at step 4 of 40" in done.stderr

    def losses(file: Path) -> np.ndarray:
        with file.open() as opened:
            return np.array([[float(cell) for cell in row.values()] for row in csv.DictReader(opened)])

    whole = losses(upgraded.home / "exports" / "losses" / "losses.csv")
    np.testing.assert_allclose(losses(tmp_path / "reports" / "losses.csv"), whole, rtol=1e-3)


def test_the_old_backup_is_restored(upgraded: Old, tmp_path: Path) -> None:
    shutil.copytree(upgraded.backup, tmp_path / "backup")
    content = json.loads((tmp_path / "backup" / "manifest.json").read_text())
    assert content["artefacts"] == f"{MADE_AT}/mlartifacts"
    home = tmp_path / "home"
    home.mkdir()
    for name in ("params.yaml", ".gitignore", "dvc.yaml"):
        shutil.copy2(upgraded.home / name, home / name)
    commit_all(home, "A new machine")
    lost = Old(home, tmp_path / "backup", upgraded.facts)
    lost.call("restore", tmp_path / "backup")
    assert set(git(home, "tag").split()) == set(git(upgraded.home, "tag").split())
    assert '"a tracking database", "version": 1' in lost.call("upgrade").stdout
    lost.call("upgrade", "--apply")
    lineage = json.loads(lost.call("lineage", "models:/dynamicid@champion", "--json").stdout)
    assert lineage
    with closing(sqlite3.connect(home / "mlflow.db")) as opened:
        places = {Path(url2pathname(urlsplit(uri).path)) for (uri,) in opened.execute("select artifact_uri from runs")}
    assert all(place.is_relative_to(home / "mlartifacts") for place in places), places
    assert any(place.is_dir() for place in places)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_the_chain_runs_once_and_then_has_nothing_to_do(old: Old) -> None:
    old.call("upgrade", "--apply")
    git(old.home, "commit", "-qam", "Upgrade the parameters")
    old.call("repro")
    again = old.call("repro")
    assert not json.loads(dvc(old.home, "status", "--json"))
    assert "train_anchoring" in again.stderr + again.stdout
    registered = json.loads(old.call("register", "--accept-refusal").stdout)
    assert registered["decision"] in ("promoted", "refused")
