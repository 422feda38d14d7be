"""The anchoring stage learns, in one process or several, and reports errors in one line."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from model.network.adapter_config import read_config
from model.training.resume import resume_key
from pipelines.core.errors import StageFailed, UserError
from pipelines.stages.train_anchoring import Inputs, run
from pipelines.stages.training_stage import check_kept
from tests.pipelines.stages.anchoring_places import files, inputs, outputs
from tests.processes import run as run_command


def test_the_loss_falls_and_is_reported(trained: Path, training_data: object) -> None:
    metrics = json.loads((trained / "reports/metrics.json").read_text())
    assert metrics["photos"] == 30
    assert metrics["people"] == 6
    assert metrics["probe_held_out"] is True
    assert metrics["probe_final"] < metrics["probe_initial"]
    with (trained / "reports/losses.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["step"]) for row in rows] == list(range(3, 13, 3))
    assert float(rows[-1]["probe"]) == metrics["probe_final"]
    weight = training_data.read().train_anchoring.identity.weight
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["noise"]) + weight * float(row["identity"]), rel=1e-4)
    assert float(rows[-1]["identity"]) < float(rows[0]["identity"])


def test_the_adapter_loads_on_its_base_and_has_learnt(trained: Path, training_data: object) -> None:
    from model.network.adapter import Adapter
    from model.network.base import load_base

    base_params = training_data.read().base
    base = load_base(Path(base_params.pipeline), Path(base_params.image_encoder))
    adapter = Adapter.load(trained / "models/anchoring", base.unet)
    assert adapter.reconfigurator is None
    assert adapter.base_reference.fingerprint == base.fingerprint()
    assert any(bool(processor.to_q_lora.up.weight.abs().max() > 0) for processor in adapter.processors)
    assert torch.isfinite(adapter.null_tokens).all()


def test_checkpoints_are_removed_and_outputs_contain_no_path(trained: Path) -> None:
    assert not list((trained / ".dynamicid/resume").rglob("step-*"))
    for name, body in files(trained).items():
        assert str(trained).encode() not in body, name


def test_the_best_weights_by_people_of_split_val_are_kept(
    training_data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate that grows too high, the first rows are the best; also where a killed training resumes after them."""
    changes = ("learning_rate=3", "learning_rate_decay=none", "noise_shift=1", "ema_decay=0", "identity.weight=0")
    changes = (*changes, "warmup_steps=12", "checkpoint_every=3", "max_grad_norm=1000")

    def train(root: Path, *more: str) -> list[float]:
        params = training_data.read(*(f"train_anchoring.{change}" for change in (*changes, *more)))
        run(params, inputs(training_data, root), outputs(root))
        with (root / "reports/losses.csv").open() as handle:
            return [float(row["probe"]) for row in csv.DictReader(handle)]

    probes = train(tmp_path / "whole", "keep=best")
    kept = json.loads((tmp_path / "whole/reports/metrics.json").read_text())["kept_step"]
    assert probes[-1] > min(probes), "else the last ones would be the best"
    assert kept == 3 * (1 + probes.index(min(probes)))
    train(tmp_path / "few", f"steps={kept:.0f}")
    adapter = "models/anchoring/adapter.safetensors"
    assert files(tmp_path / "whole")[adapter] == files(tmp_path / "few")[adapter]
    train(tmp_path / "again", "keep=best", "steps=9")
    train(tmp_path / "again", "keep=best")
    assert files(tmp_path / "again") == files(tmp_path / "whole")


def test_a_fast_training_says_so_and_has_checkpoints_of_its_own(
    trained: Path, training_data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact: list[bool] = []
    keys: list[Mapping[str, object]] = []

    def key(hashes: Mapping[str, str], settings: Mapping[str, object]) -> str:
        keys.append(settings)
        return resume_key(hashes, settings)

    monkeypatch.setattr("model.training.resume.resume_key", key)
    monkeypatch.setattr(
        "pipelines.stages.training_stage.note_row",
        lambda _: exact.append(torch.are_deterministic_algorithms_enabled()),
    )
    changes = ("train_anchoring.steps=3", "train_anchoring.projection_steps=0")
    for kind in ("bitwise", "fast"):
        params = training_data.read(f"train_anchoring.determinism={kind}", *changes)
        run(params, inputs(training_data, tmp_path), outputs(tmp_path))
        assert json.loads((tmp_path / "reports/metrics.json").read_text())["determinism"] == kind
        config = json.loads((tmp_path / "models/anchoring/config.json").read_text())
        assert config["made_by"]["params"]["train_anchoring"]["determinism"] == kind
    assert exact == [True, False]
    assert [settings.get("determinism") for settings in keys] == [None] * 3 + ["fast"] * 3, "None: as before"


@pytest.mark.parametrize("stage", ["train_anchoring", "train_imr"])
def test_without_people_in_split_val_the_best_weights_are_refused(training_data: object, stage: str) -> None:
    settings = getattr(training_data.read(f"{stage}.keep=best"), stage)
    check_kept(stage, settings, held_out=True)
    with pytest.raises(ValueError, match=f"{stage}.keep is best, and split val has nobody to measure with"):
        check_kept(stage, settings, held_out=False)


def test_samples_of_the_same_people_change_nothing(
    trained: Path, training_data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = tmp_path / "executions" / "train_anchoring.jsonl"
    execution.parent.mkdir()
    monkeypatch.setenv("DYNAMICID_EXECUTION", str(execution))
    run(training_data.read("train_anchoring.samples_every=6"), inputs(training_data, tmp_path), outputs(tmp_path))
    assert files(tmp_path) == files(trained)
    first, last = (np.array(Image.open(file)) for file in sorted(execution.with_suffix("").iterdir()))
    photos, drawn = np.vsplit(last, 2)
    assert last.shape == first.shape == (128, 64, 3), "one photo of the one person in split val"
    assert np.array_equal(photos, first[:64])
    assert not np.array_equal(drawn, first[64:])
    assert drawn.std() > 1


def test_the_formats_of_the_caches_are_inputs_of_a_training(
    trained: Path, training_data: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = ("caches.clip=none", "caches.latents=int8", "caches.text=none")
    run(training_data.read(*formats, "train_anchoring.steps=2"), inputs(training_data, tmp_path), outputs(tmp_path))
    caches = tmp_path / ".dynamicid" / "cache"
    assert {folder.name for folder in caches.iterdir() if folder.is_dir()} == {"faces", "latents"}
    assert "are computed when they are drawn, nothing is kept" in capsys.readouterr().err
    made_by = read_config(outputs(tmp_path).adapter)["made_by"]
    assert json.loads(made_by["inputs"]["caches"]) == {"clip": "none", "latents": "int8", "text": "none"}
    assert made_by["params"]["caches"]["clip"] == "none"
    # Where nothing else is chosen, an adapter records what it always did.
    assert "caches" not in read_config(outputs(trained).adapter)["made_by"]["inputs"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("base.resolution=128", r"base.resolution 128: the UNet .* makes pictures of 64 px"),
        ("base.pipeline=nowhere", "nowhere: no such folder"),
        pytest.param(
            "train_anchoring.mixed_precision=fp16",
            "mixed_precision 'fp16' needs a GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="half precision is possible on a GPU"),
        ),
    ],
)
def test_wrong_parameters_are_refused(training_data: object, tmp_path: Path, changed: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(training_data.read(changed), inputs(training_data, tmp_path), outputs(tmp_path))


def test_a_recogniser_that_cannot_be_used_is_refused(training_data: object, tmp_path: Path, project: Path) -> None:
    pack = tmp_path / "packs" / "models" / "tiny_faces"
    pack.mkdir(parents=True)
    params = training_data.read(f"preprocess.insightface_root={tmp_path / 'packs'}")
    with pytest.raises(UserError, match=r"no recognition network there.*without the identity term: .*weight=0"):
        run(params, inputs(training_data, tmp_path), outputs(tmp_path))
    shutil.copy(project / training_data.read().evaluate.judges.recogniser.path, pack / "rec.onnx")
    with pytest.raises(UserError, match=r"cannot be differentiated here.*without the identity term: .*weight=0"):
        run(params, inputs(training_data, tmp_path), outputs(tmp_path))


def test_bfloat16_trains_without_a_gpu(training_data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = ("base.dtype=bfloat16", "train_anchoring.mixed_precision=bf16", "train_imr.mixed_precision=bf16")
    losses = {}
    # One precision holds for a process, and the next test expects the full one.
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})
    for name, changed in (("full", ()), ("half", half)):
        AcceleratorState._reset_state()
        params = training_data.read("train_anchoring.steps=3", *changed)
        run(params, inputs(training_data, tmp_path / name), outputs(tmp_path / name))
        with (tmp_path / name / "reports/losses.csv").open() as handle:
            losses[name] = float(next(csv.DictReader(handle))["loss"])
    assert losses["half"] != losses["full"]
    assert losses["half"] == pytest.approx(losses["full"], rel=0.05)


def test_without_the_identity_term_the_loss_is_noise_prediction(training_data: object, tmp_path: Path) -> None:
    params = training_data.read("train_anchoring.identity.weight=0", "train_anchoring.steps=3")
    run(params, inputs(training_data, tmp_path), outputs(tmp_path))
    with (tmp_path / "reports/losses.csv").open() as handle:
        assert list(next(csv.DictReader(handle))) == ["step", "loss", "smoothed", "probe"]


def test_photos_of_unknown_people_are_trained_on(
    training_data: object, tmp_path: Path, write_processed: Callable[..., Path]
) -> None:
    processed = write_processed(tmp_path / "processed", known=False)
    params = training_data.read("train_anchoring.steps=2")
    values = run(params, Inputs(processed=processed, state=tmp_path / ".dynamicid"), outputs(tmp_path))
    assert values["photos"] == 30
    assert values["people"] == 0


def divided(data: object, root: Path, project: Path, processes: int, *settings: str, **options: int) -> str:
    """Train with `processes` processes and a batch of four in all; return what they print."""
    root.mkdir(exist_ok=True)
    given = (
        "train_anchoring.identity.weight=0",
        "train_anchoring.log_every=1",
        f"train_anchoring.batch_size={4 // processes}",
        *settings,
    )
    command = [sys.executable, "-m", "pipelines.cli", "train-anchoring", "--processes", str(processes)]
    command += ["--processed", str(data.processed), "--params", str(data.params), "--reports", "reports"]
    command += [word for each in given for word in ("--set", each)]
    return run_command(*command, cwd=root, env={"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}, **options).stderr


def curve(root: Path) -> list[tuple[str, float]]:
    """Return step and loss of every row."""
    with (root / "reports/losses.csv").open() as handle:
        return [(row["step"], float(row["loss"])) for row in csv.DictReader(handle)]


def test_two_processes_divide_the_work_and_lose_as_one_with_the_whole_batch(
    training_data: object, tmp_path: Path, project: Path
) -> None:
    printed = divided(training_data, tmp_path / "two", project, 2, "train_anchoring.steps=3")
    assert "2 processes on cpu divide the work" in printed
    assert (tmp_path / "two/models/anchoring/adapter.safetensors").is_file()
    divided(training_data, tmp_path / "one", project, 1, "train_anchoring.steps=3")
    assert [step for step, _ in curve(tmp_path / "two")] == ["1", "2", "3"]
    for (_, loss), (_, expected) in zip(curve(tmp_path / "two"), curve(tmp_path / "one"), strict=True):
        assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_four_processes_resume_to_the_same_bytes_and_no_other_number_goes_on(
    training_data: object, tmp_path: Path, project: Path
) -> None:
    settings = ("train_anchoring.learning_rate_decay=none", "train_anchoring.noise_shift=1")
    for steps in (2, 4):
        printed = divided(training_data, tmp_path / "four", project, 4, *settings, f"train_anchoring.steps={steps}")
    assert "anchoring: resumed at step 2 of 4" in printed
    divided(training_data, tmp_path / "whole", project, 4, *settings, "train_anchoring.steps=4")
    assert files(tmp_path / "four") == files(tmp_path / "whole")
    divided(training_data, tmp_path / "one", project, 1, *settings, "train_anchoring.steps=4")
    for (_, loss), (_, expected) in zip(curve(tmp_path / "four"), curve(tmp_path / "one"), strict=True):
        assert loss == pytest.approx(expected, rel=1e-3)


def test_another_number_of_processes_is_refused_by_name(training_data: object, tmp_path: Path) -> None:
    from model.training.resume import PROGRESS, Checkpoints

    def of(shape: str) -> Checkpoints:
        return Checkpoints(tmp_path, "train_anchoring", f"key of {shape}", shape=shape, work="work")

    left = tmp_path / "train_anchoring" / "key of 8 processes on cuda" / "step-00000100"
    left.mkdir(parents=True)
    progress = {"format": 1, "stage": "train_anchoring", "key": "key of 8 processes on cuda", "step": 100, "files": {}}
    (left / PROGRESS).write_text(json.dumps({**progress, "shape": "8 processes on cuda", "work": "work"}))
    four = of("4 processes on cuda")
    assert four.latest() is None
    assert four.otherwise_divided() == (left, "8 processes on cuda")
    with pytest.raises(ValueError, match="with 8 processes on cuda, and this is one with 4 processes on cuda"):
        four.checked(left)
    assert of("8 processes on cuda").otherwise_divided() is None


def test_processes_that_would_train_alone_are_refused(training_data: object, tmp_path: Path, project: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "train-anchoring", "--processed", str(training_data.processed)]
    command += ["--params", str(training_data.params)]
    done = run_command(*command, cwd=tmp_path, env={"PYTHONPATH": str(project), "WORLD_SIZE": "2"}, code=2)
    assert "2 processes were started, but 1 would train" in done.stderr


def test_a_licence_that_the_policy_refuses_ends_the_training_first(training_data: object, tmp_path: Path) -> None:
    params = training_data.read("register.licences={allow: [MIT], deny: []}")
    with pytest.raises(StageFailed, match=r"register\.licences: foundation-faces .* Apache-2\.0, not among those"):
        run(params, inputs(training_data, tmp_path), outputs(tmp_path))
    assert list(tmp_path.iterdir()) == []
