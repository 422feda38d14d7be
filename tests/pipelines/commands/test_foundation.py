"""`dynamicid foundation`: what it draws, checks and refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from model.foundation import manifest
from pipelines.cli import app
from pipelines.errors import StageFailed, UserError

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


def test_a_folder_like_its_manifest_passes(weights: Path) -> None:
    done = foundation("check", "--weights", weights)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["files"], told["bytes"]) == (2, 13)
    assert told["figures"]["clip"]["zero_shot_pose"] == 0.9
    assert "zero-shot pose" in done.stderr
    assert "passed" in done.stderr
    # A figure that could not be measured is a gate that is not passed.
    assert "missed" in done.stderr


def test_changed_and_missing_files_are_listed(weights: Path) -> None:
    (weights / "landmarks68.onnx").write_bytes(b"others")
    (weights / "judges" / "recogniser.onnx").unlink()
    done = foundation("check", "--weights", weights)
    assert isinstance(done.exception, StageFailed)
    assert "2 files are not as in the manifest" in str(done.exception)
    assert "judges/recogniser.onnx: missing" in done.stderr
    assert "landmarks68.onnx: its bytes are not those of the manifest" in done.stderr
    assert done.stdout == ""


def test_measure_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    done = foundation("measure", "--weights", tmp_path / "weights", "--work", tmp_path / "work")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["figures"] == {}
    assert told["gates"] == []
    assert told["missing"]["landmarks"] == ["landmarks68.onnx"]
    assert "unet: not measured, sd/unet/diffusion_pytorch_model.safetensors" in done.stderr
    # Nobody is drawn to measure nothing.
    assert not (tmp_path / "work").exists()


def test_measured_figures_are_kept_in_the_manifest(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = manifest.read(weights)
    done = foundation("measure", "--weights", weights, "--work", tmp_path / "work", "--part", "clip", "--record")
    assert done.exit_code == 0, done.output
    # Nothing could be measured, so what was known stays.
    assert manifest.read(weights)["figures"] == before["figures"]
    found = {"clip": {"zero_shot_expression": 0.8}, "identity_tokens": {"expression_kept": 0.7}}
    monkeypatch.setattr("model.foundation.measure.measure_foundation", lambda *_, **__: (found, {}))
    assert foundation("measure", "--weights", weights, "--work", tmp_path / "work", "--record").exit_code == 0
    after = manifest.read(weights)["figures"]
    assert after["clip"] == {"zero_shot_pose": 0.9, "zero_shot_expression": 0.8}
    assert after["identity_tokens"] == {"expression_kept": 0.7}
    assert after["judge"] == before["figures"]["judge"]
    assert manifest.check(weights) == []
    others = foundation("measure", "--weights", weights, "--adapter", tmp_path, "--record")
    assert "leave out --adapter" in str(others.exception)
    (weights / "landmarks68.onnx").write_bytes(b"others")
    refused = foundation("measure", "--weights", weights, "--work", tmp_path / "work", "--part", "clip", "--record")
    assert isinstance(refused.exception, StageFailed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "--weights", "nowhere"], "nowhere/manifest.json: no manifest"),
        (["measure", "--weights", "nowhere"], "nowhere: no such folder of weights"),
        (["measure", "--weights", ".", "--record"], "manifest.json: no manifest"),
        (["measure", "--weights", ".", "--part", "nose"], "nose: no part of the foundation"),
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


def test_an_adapter_is_shipped_with_its_own_figures_alone(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    settings = {"adapter": digest, "profile": "tiny"}
    document = {"settings": settings, "normalised": {"model": {"id_similarity": {"value": 0.5}}}, "model": {}}
    shipped: list[dict[str, float]] = []
    recipes: list[dict[str, Any]] = []

    def put(_: Path, folder: Path, recipe: dict[str, Any], figures: dict[str, float]) -> Path:
        recipes.append(recipe)
        shipped.append(figures)
        return folder / "adapter"

    monkeypatch.setattr("model.foundation.shipped_adapter.ship", put)
    metrics = tmp_path / "metrics.json"
    first = project / "profiles" / "tiny.yaml"

    def ship(*more: str | Path, params: Path = first, **changed: str) -> Result:
        metrics.write_text(json.dumps({**document, "settings": {**settings, **changed}}))
        return foundation("ship", adapter, "--metrics", metrics, "--weights", weights, "--params", params, *more)

    for changed in ({"adapter": "0" * 64}, {"profile": "showcase"}):
        refused = ship(**changed)
        assert isinstance(refused.exception, UserError)
        assert f"figures of {next(iter(changed))} {next(iter(changed.values()))}" in str(refused.exception)
    assert not shipped
    assert ship().exit_code == 0
    assert shipped == [{"s": 0.5}]

    second = tmp_path / "second.yaml"
    began = first.read_text().replace("start_from: null", "start_from: models:/dynamicid/1", 1)
    second.write_text(began.replace("  learning_rate: 0.0015", "  learning_rate: 0.0007", 1))
    wider, narrower = tmp_path / "wider.yaml", tmp_path / "narrower.yaml"
    wider.write_text(second.read_text().replace("    lora_rank: 8", "    lora_rank: 16", 1))
    narrower.write_text(second.read_text().replace("    lora_rank: 8", "    lora_rank: 4", 1))
    for named, params, message in (
        ([], second, "earlier legs"),
        (["--before", first], first, "earlier legs"),
        (["--before", second], second, "earlier legs"),
        (["--before", first, "--before", first], second, "earlier legs"),
        (["--before", first], narrower, "other sizes"),
        (["--before", first, "--before", wider], second, "other sizes"),
    ):
        refused = ship(*named, params=params)
        assert isinstance(refused.exception, UserError)
        assert message in str(refused.exception)
    assert len(shipped) == 1
    assert ship("--before", first, params=second).exit_code == 0
    assert ship("--before", first, "--before", second, params=wider).exit_code == 0
    assert "legs_before" not in recipes[0]
    assert recipes[1]["legs_before"] == [recipes[0]["train_anchoring"]]
    assert recipes[1]["train_anchoring"]["start_from"] == "models:/dynamicid/1"
