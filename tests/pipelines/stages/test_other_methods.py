"""Both training stages with other methods: trained, resumed exactly, passed on without an IMR."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model.network.adapter import Adapter
from model.network.base import load_base
from pipelines.core.errors import UserError
from pipelines.stages import train_anchoring, train_imr, training_stage
from pipelines.stages.training_stage import chosen_formats
from tests.pipelines.stages.anchoring_places import files, inputs, outputs

METHODS = ("ip_adapter_faceid", "ip_adapter_faceid_plus", "consistentid")


def settings(method: str, *more: str) -> list[str]:
    plain = ("identity.weight=0", "learning_rate_decay=none", "noise_shift=1", f"method={method}", *more)
    return [f"train_anchoring.{change}" for change in plain]


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_resumes_and_is_passed_on(
    training_data: object, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    for root, steps in ((once, 12), (again, 5), (again, 12)):
        params = training_data.read(*settings(method, f"steps={steps}"))
        metrics = train_anchoring.run(params, inputs(training_data, root), outputs(root))
    assert "resumed at step 5 of 12" in capsys.readouterr().err
    assert metrics["probe_final"] < metrics["probe_initial"]
    assert files(again) == files(once)
    config = json.loads((once / "models/anchoring/config.json").read_text())
    assert (config["method"], config["made_by"]["params"]["train_anchoring"]["method"]) == (method, method)

    stage = train_imr.Inputs(training_data.processed, once / ".dynamicid", anchoring=once / "models/anchoring")
    made = train_imr.Outputs(once / "models/adapter", once / "imr.csv", once / "imr.json")
    assert train_imr.run(params, stage, made) == {"steps": 0, "photos_not_permitted": 0}
    assert f"{method} has no IMR" in capsys.readouterr().err
    assert made.losses.read_text() == "step,loss,smoothed,probe\n0,,,\n"
    weights = "adapter.safetensors"
    assert (made.adapter / weights).read_bytes() == (once / "models/anchoring" / weights).read_bytes()
    record = json.loads((made.adapter / "config.json").read_text())["made_by"]
    assert (record["stage"], record["before"]["stage"]) == ("train_imr", "train_anchoring")
    base = load_base(Path(params.base.pipeline), Path(params.base.image_encoder))
    assert Adapter.load(made.adapter, base.unet).method.name == method


@pytest.mark.nightly
@pytest.mark.parametrize("method", METHODS[1:])
def test_a_killed_training_ends_with_the_same_bytes(
    training_data: object, tmp_path: Path, kill_and_count: Callable[..., int], method: str
) -> None:
    changes = settings(method)
    command = ["train-anchoring", "--processed", str(training_data.processed), "--params", str(training_data.params)]
    command += ["--out", "models/anchoring", "--reports", "reports"]
    for change in changes:
        command += ["--set", change]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    assert 0 < kill_and_count(command, killed) < 12
    for root in (killed, whole):
        train_anchoring.run(training_data.read(*changes), inputs(training_data, root), outputs(root))
    assert files(killed) == files(whole)


def test_records_of_dynamicid_name_no_method(training_data: object, tmp_path: Path) -> None:
    params = training_data.read("train_anchoring.steps=1", "train_anchoring.identity.weight=0")
    train_anchoring.run(params, inputs(training_data, tmp_path), outputs(tmp_path))
    config = json.loads((tmp_path / "models/anchoring/config.json").read_text())
    assert config["format"] == 1
    assert "method" not in config
    assert not {"method", "facial_parts"} & config["made_by"]["params"]["train_anchoring"].keys()
    kept = training_data.read("train_anchoring.steps=1", "caches.parts=none", "train_anchoring.identity.weight=0")
    assert chosen_formats(kept, kept.train_anchoring) == {}, "which no training of this method reads"


def test_records_of_consistentid_name_its_facial_parts(
    training_data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = settings("consistentid", "steps=1", "facial_parts.localisation_weight=0.5", "samples_every=1")
    params = training_data.read(*changes, "caches.parts=int8")
    drawn: list[tuple[int, ...]] = []
    monkeypatch.setattr(training_stage, "note_samples", lambda step, grid: drawn.append(grid.shape))
    train_anchoring.run(params, inputs(training_data, tmp_path), outputs(tmp_path))
    assert drawn == [(128, 64, 3)], "a photo of the one person of split val, and the picture"
    config = json.loads((tmp_path / "models/anchoring/config.json").read_text())
    recorded = config["made_by"]["params"]
    assert recorded["train_anchoring"]["facial_parts"]["localisation_weight"] == 0.5
    assert recorded["caches"]["parts"] == "int8"
    assert (config["sizes"]["parts_width"], config["sizes"]["parts_depth"]) == (128, 2)
    rows = outputs(tmp_path).losses.read_text().splitlines()
    assert "localisation" in rows[0]
    caches = tmp_path / ".dynamicid/cache"
    assert {folder.name for folder in caches.iterdir() if folder.is_dir()} >= {"part_states", "landmarks"}


def test_the_shipped_adapter_of_dynamicid_is_no_start(training_data: object, tmp_path: Path) -> None:
    first = training_data.read("train_anchoring.steps=1", "train_anchoring.identity.weight=0")
    train_anchoring.run(first, inputs(training_data, tmp_path), outputs(tmp_path))
    start = f"start_from={tmp_path / 'models/anchoring'}"
    with pytest.raises(UserError, match=r"method dynamicid, here ip_adapter_faceid_plus.*start from scratch"):
        train_anchoring.run(
            training_data.read(*settings(METHODS[1], start)), inputs(training_data, tmp_path), outputs(tmp_path / "b")
        )
