"""`dynamicid foundation` draws, checks and measures, and refuses wrong use in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from model.face.ledger import hash_of_person
from model.foundation import manifest
from pipelines.cli import app
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import load_params
from pipelines.core.row_schemas import PROCESSED_SCHEMA

FEW = ("--people", "4", "--photos", "2", "--size", "32", "--workers", "1")


def foundation(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["foundation", *map(str, arguments)])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    (folder / "judges").mkdir(parents=True)
    (folder / "judges" / "recogniser.onnx").write_bytes(b"network")
    (folder / "landmarks68.onnx").write_bytes(b"points")
    manifest.write(folder, {"clip": {}}, {"clip": {"zero_shot_pose": 0.9}, "judge": {"auc_128": 0.9, "auc_64": None}})
    return folder


def test_people_are_drawn_once(tmp_path: Path) -> None:
    done = foundation("draw", "--work", tmp_path, *FEW, "--groups", "0.5")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"photos": 8, "pairs": 4, "people_held_out": 1}
    photos = tmp_path / "people" / "photos.npy"
    before = photos.stat().st_mtime_ns
    assert foundation("draw", "--work", tmp_path, *FEW, "--groups", "0.5").exit_code == 0
    assert photos.stat().st_mtime_ns == before
    other = foundation("draw", "--work", tmp_path, *FEW, "--seed", "1")
    assert isinstance(other.exception, UserError)
    assert "holds people drawn with other settings" in str(other.exception)


def test_the_second_edition_has_people_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = foundation(
        "draw", "--edition", "2", "--people", "6", "--photos", "1", "--size", "32", "--groups", "1", "--workers", "1"
    )
    assert done.exit_code == 0, done.output
    # Two of each of four shapes.
    assert json.loads(done.stdout) == {"photos": 6, "groups": 8, "people_held_out": 1}
    folder = tmp_path / ".dynamicid" / "foundation" / "edition-2" / "people"
    assert (folder / "group_192x96_photos.npy").is_file()


def test_a_folder_like_its_manifest_passes(weights: Path) -> None:
    done = foundation("check", "--weights", weights)
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert (printed["files"], printed["bytes"]) == (2, 13)
    assert printed["figures"]["clip"]["zero_shot_pose"] == 0.9
    assert "zero-shot pose" in done.stderr
    assert "passed" in done.stderr
    # A figure that could not be measured fails its gate.
    assert "missed" in done.stderr


def test_changed_and_missing_files_are_listed(weights: Path) -> None:
    (weights / "landmarks68.onnx").write_bytes(b"others")
    (weights / "judges" / "recogniser.onnx").unlink()
    done = foundation("check", "--weights", weights)
    assert isinstance(done.exception, StageFailed)
    assert "not as in the manifest: 2 files" in str(done.exception)
    assert "judges/recogniser.onnx: missing" in done.stderr
    assert "landmarks68.onnx: its bytes are not those of the manifest" in done.stderr
    assert done.stdout == ""


def test_measure_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    done = foundation("measure", "--weights", tmp_path / "weights", "--work", tmp_path / "work")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["figures"] == {}
    assert printed["gates"] == []
    assert printed["missing"]["landmarks"] == ["landmarks68.onnx"]
    assert "unet: not measured, sd/unet/diffusion_pytorch_model.safetensors" in done.stderr
    # Only a measurement needs drawn people.
    assert not (tmp_path / "work").exists()


def test_measured_figures_are_kept_in_the_manifest(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = manifest.read(weights)
    done = foundation("measure", "--weights", weights, "--work", tmp_path / "work", "--part", "clip", "--record")
    assert isinstance(done.exception, UserError)
    assert "clip: not measured, clip/model.safetensors" in str(done.exception)
    # Nothing could be measured, so the manifest keeps its figures.
    assert manifest.read(weights)["figures"] == before["figures"]
    found = {"clip": {"zero_shot_expression": 0.8}, "identity_tokens": {"expression_kept": 0.7}}
    monkeypatch.setattr("model.foundation.measure.measure_foundation", lambda *_, **__: (found, {}))
    assert foundation("measure", "--weights", weights, "--work", tmp_path / "work", "--record").exit_code == 0
    after = manifest.read(weights)["figures"]
    assert after["clip"] == {"zero_shot_pose": 0.9, "zero_shot_expression": 0.8}
    assert after["identity_tokens"] == {"expression_kept": 0.7}
    assert after["judge"] == before["figures"]["judge"]
    assert manifest.check(weights) == []
    for changed in (["--adapter", tmp_path], ["--guidance", "9"], ["--pictures", "7"]):
        others = foundation("measure", "--weights", weights, "--work", tmp_path / "work", *changed, "--record")
        assert isinstance(others.exception, UserError)
        assert "leave out --" in str(others.exception)
    (weights / "landmarks68.onnx").write_bytes(b"others")
    refused = foundation("measure", "--weights", weights, "--work", tmp_path / "work", "--part", "clip", "--record")
    assert isinstance(refused.exception, StageFailed)


def test_a_loss_that_is_not_finite_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(network: nn.Module, *_: object) -> dict[str, Tensor]:
        return {"loss": next(network.parameters()).sum() * float("nan")}

    monkeypatch.setattr("model.foundation.landmarks.losses", losses)
    places = ("--work", tmp_path, "--weights", tmp_path / "weights")
    assert foundation("draw", *places[:2], *FEW).exit_code == 0
    done = foundation("train", *places, "--part", "landmarks", "--steps-scale", "0.001")
    assert isinstance(done.exception, StageFailed)
    assert str(done.exception).startswith("foundation: landmarks: the loss is nan at step 1: lower RATE")
    assert "\n" not in str(done.exception)
    assert StageFailed.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "--weights", "nowhere"], "nowhere/manifest.json: no manifest"),
        (["measure", "--weights", "nowhere"], "nowhere: no such folder of weights"),
        (["measure", "--weights", ".", "--record"], "manifest.json: no manifest"),
        (["measure", "--weights", ".", "--adapter", "nowhere"], "nowhere: no adapter here"),
        (["measure", "--weights", ".", "--part", "nose"], "nose: no part of the foundation"),
        (["check", "--edition", "3"], "edition 3: expected one of 1, 2"),
        (["draw", "--edition", "2", "--people", "4"], "4 people, expected at least 5 for pictures of 4"),
        (["measure", "--weights", ".", "--part", "several_people"], "several_people: no part of the foundation"),
        (["train", "--edition", "2", "--weights", "nowhere", "--part", "unet"], "train part people first"),
        (["train", "--weights", "nowhere", "--part", "nose"], "nose: no part of the foundation"),
        (["train", "--weights", "nowhere", "--part", "clip"], "train part people first"),
    ],
)
def test_wrong_use_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = foundation(*arguments)
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_an_adapter_is_shipped_with_its_figures_and_recipe(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    shipped_folder = "start_from: model/foundation/weights/adapter"
    first = tmp_path / "first.yaml"
    first.write_text((project / "profiles" / "tiny.yaml").read_text().replace(shipped_folder, "start_from: null"))
    section = load_params(first).train_anchoring
    adapter, metrics = tmp_path / "adapter", tmp_path / "metrics.json"
    adapter.mkdir()
    (adapter / "adapter.safetensors").write_bytes(b"weights")
    config = {"format": 1, "sizes": section.sizes.model_dump(), "gate_threshold": section.gate_threshold}
    (adapter / "config.json").write_text(json.dumps(config))
    settings = {"adapter": hashlib.sha256(b"weights").hexdigest(), "profile": "tiny"}
    likeness = {"model": {"id_similarity": {"value": 0.5}}}
    metrics.write_text(json.dumps({"settings": settings, "normalised": likeness, "model": {"leakage": {"value": 0.1}}}))
    second = tmp_path / "second.yaml"
    second.write_text(first.read_text().replace("start_from: null", "start_from: models:/dynamicid/1", 1))
    shipped: list[tuple[dict[str, Any], dict[str, float], dict[str, str]]] = []

    def put(_: Path, folder: Path, recipe: dict[str, Any], figures: dict[str, float], seen: dict[str, str]) -> Path:
        shipped.append((recipe, figures, seen))
        return folder / "adapter"

    people = [("anna", "train"), ("ben", "val"), ("carl", "test"), (None, "train")]
    rows = [{"image_id": str(number), "identity": who, "split": split} for number, (who, split) in enumerate(people)]
    (tmp_path / "processed").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, PROCESSED_SCHEMA), tmp_path / "processed" / "part.parquet")

    monkeypatch.setattr("model.foundation.shipped_adapter.ship", put)
    common = ["ship", adapter, "--metrics", metrics, "--weights", weights, "--processes", "2", "--params", second]
    common += ["--processed", tmp_path / "processed"]
    assert isinstance(foundation(*common).exception, UserError)
    assert not shipped
    done = foundation(*common, "--before", first)
    assert done.exit_code == 0, done.output
    ((recipe, figures, seen),) = shipped
    assert seen == {"train": hash_of_person("anna"), "val": hash_of_person("ben")}
    assert figures == {"s": 0.5, "leakage": 0.1}
    assert recipe["processes"] == 2
    assert len(recipe["legs_before"]) == 1
