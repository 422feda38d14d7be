"""The reconfiguration stage learns, resumes exactly and refuses photos of unknown people."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.core.errors import UserError
from pipelines.core.weights.licences import networks_of_adapter
from pipelines.stages import train_anchoring
from pipelines.stages.train_imr import Inputs, Outputs, run
from tests.pipelines.stages.test_train_anchoring import files

Kill = Callable[[list[str], Path], int]


def outputs(root: Path) -> Outputs:
    return Outputs(root / "models/adapter", root / "reports/losses.csv", root / "reports/metrics.json")


@pytest.fixture
def anchored(training_data: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An anchoring adapter, made once."""
    root = training_data.processed.parent / "anchored"
    if not root.exists():
        train_anchoring.run(
            training_data.read("train_anchoring.steps=2"),
            train_anchoring.Inputs(processed=training_data.processed, state=root.with_name("state")),
            train_anchoring.Outputs(root, root.with_name("a.csv"), root.with_name("a.json")),
        )
    return root


@pytest.fixture
def stage_inputs(training_data: object, anchored: Path) -> Callable[..., Inputs]:
    def make(root: Path, **more: Path) -> Inputs:
        given = {"processed": training_data.processed, "anchoring": anchored, "state": root / ".dynamicid"}
        return Inputs(**{**given, **more})

    return make


@pytest.fixture
def trained(training_data: object, stage_inputs: Callable[..., Inputs]) -> Path:
    """A folder with the outputs of one uninterrupted run."""
    root = training_data.processed.parent / "imr"
    if not root.exists():
        run(training_data.read(), stage_inputs(root), outputs(root))
    return root


def test_losses_and_baselines_are_reported(trained: Path) -> None:
    metrics = json.loads((trained / "reports/metrics.json").read_text())
    assert metrics["people"] == 6
    assert metrics["people_held_out"] == 1
    # At first the residual is zero and the IMR copies the source.
    assert metrics["probe_initial"] == pytest.approx(metrics["copy_source"], rel=1e-4)
    assert metrics["imr"] == metrics["probe_final"] != metrics["probe_initial"]
    assert metrics["person_mean"] > 0
    with (trained / "reports/losses.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["step"]) for row in rows] == list(range(3, 13, 3))
    assert all(float(row["noise"]) >= 0 for row in rows)


def test_samples_show_sources_and_the_motion_that_they_are_asked_for(
    trained: Path, stage_inputs: Callable[..., Inputs], training_data: object, tmp_path: Path, monkeypatch: Any
) -> None:
    execution = tmp_path / "executions" / "train_imr.jsonl"
    execution.parent.mkdir()
    monkeypatch.setenv("DYNAMICID_EXECUTION", str(execution))
    run(training_data.read("train_imr.samples_every=5"), stage_inputs(tmp_path), outputs(tmp_path))
    assert files(tmp_path) == files(trained)
    grids = [np.array(Image.open(file)) for file in sorted(execution.with_suffix("").iterdir())]
    source, target, drawn = np.vsplit(grids[0], 3)
    assert source.shape == (64, 64, 3), "one person of split val has several photos"
    assert len({one.tobytes() for one in (source, target, drawn)}) == 3


def test_the_adapter_is_complete_and_the_anchored_parts_are_unchanged(
    trained: Path, anchored: Path, training_data: object
) -> None:
    import torch

    from model.network.adapter import Adapter
    from model.network.base import load_base

    models = training_data.read().base
    unet = load_base(Path(models.pipeline), Path(models.image_encoder)).unet
    before = Adapter.load(anchored, unet).state_dict()
    after = Adapter.load(trained / "models/adapter", unet)
    assert after.templates.shape == (7, 5, 68, 2)
    assert after.reconfigurator.proj_out.weight.abs().max() > 0
    state = after.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.items())


def test_it_continues_from_the_imr_of_another_adapter(
    trained: Path, training_data: object, stage_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    start = trained / "models/adapter"
    params = training_data.read(f"train_imr.start_from={start}", "train_imr.steps=3")
    metrics = run(params, stage_inputs(tmp_path), outputs(tmp_path))
    before = json.loads((trained / "reports/metrics.json").read_text())
    assert metrics["probe_initial"] == pytest.approx(before["probe_final"], rel=1e-4)
    record = json.loads((tmp_path / "models/adapter/config.json").read_text())["made_by"]
    assert record["params"]["train_imr"]["start_from"] == str(start)
    assert "start" in record["inputs"]


def test_an_imr_that_is_missing_or_has_other_sizes_is_no_start(
    *, trained: Path, anchored: Path, training_data: object, stage_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="has no IMR to start from"):
        run(training_data.read(f"train_imr.start_from={anchored}"), stage_inputs(tmp_path), outputs(tmp_path))
    other = (f"train_imr.start_from={trained / 'models/adapter'}", "train_imr.residual=false")
    with pytest.raises(UserError, match=r"has other sizes \(residual True, here False\); start from new weights"):
        run(training_data.read(*other), stage_inputs(tmp_path), outputs(tmp_path))


@pytest.mark.nightly
def test_a_killed_training_ends_with_the_same_bytes(
    trained: Path, training_data: object, stage_inputs: Callable[..., Inputs], tmp_path: Path, kill_and_count: Kill
) -> None:
    anchored = stage_inputs(tmp_path).anchoring
    command = ["train-imr", "--processed", str(training_data.processed), "--params", str(training_data.params)]
    command += ["--anchoring", str(anchored), "--out", "models/adapter", "--reports", "reports"]
    assert 0 < kill_and_count(command, tmp_path) < 12
    run(training_data.read(), stage_inputs(tmp_path), outputs(tmp_path))
    assert files(tmp_path) == files(trained)


def test_photos_of_unknown_people_are_refused_and_curate_is_named(
    training_data: object,
    stage_inputs: Callable[..., Inputs],
    tmp_path: Path,
    write_processed: Callable[..., Path],
) -> None:
    processed = write_processed(tmp_path / "processed", known=False)
    with pytest.raises(UserError, match=r"30 of 30 photos have no known identity.*dynamicid curate") as error:
        run(training_data.read(), stage_inputs(tmp_path, processed=processed), outputs(tmp_path))
    assert "\n" not in str(error.value)


def test_a_missing_anchoring_adapter_is_named(
    training_data: object, stage_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"nowhere/config.json: no such file"):
        run(training_data.read(), stage_inputs(tmp_path, anchoring=tmp_path / "nowhere"), outputs(tmp_path))


def test_an_adapter_of_another_base_is_refused_unless_it_is_allowed_and_then_recorded(
    training_data: object, stage_inputs: Callable[..., Inputs], anchored: Path, tmp_path: Path
) -> None:
    import shutil

    other = shutil.copytree(anchored, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["base"]["fingerprint"] = "0" * 64
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="trained on another base model"):
        run(training_data.read(), stage_inputs(tmp_path, anchoring=other), outputs(tmp_path))
    allowed = training_data.read("base.allow_other=true", "train_imr.steps=2")
    run(allowed, stage_inputs(tmp_path, anchoring=other), outputs(tmp_path))
    made = json.loads((tmp_path / "models" / "adapter" / "config.json").read_text())
    assert made["made_by"]["inputs"]["anchored_on"] == "0" * 64 != made["base"]["fingerprint"]


def test_the_adapter_records_the_networks_that_formed_it(trained: Path) -> None:
    found = networks_of_adapter(trained / "models" / "adapter")
    assert found is not None
    by_parameter = {one["parameter"]: one for one in found}
    assert len(by_parameter) == len(found), "both trainings had the same networks"
    assert by_parameter["preprocess.insightface_name"]["network"] == "foundation-faces"
    assert by_parameter["preprocess.insightface_name"]["licence"] == "Apache-2.0"
    assert by_parameter["base.pipeline"]["licence"] is None, "a random base that nobody licensed"
