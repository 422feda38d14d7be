"""A training resumes exactly, goes on with more steps, and starts from another adapter, or says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.stages.train_anchoring import run
from pipelines.stages.training_stage import adapter_to_start_from
from tests.pipelines.stages.anchoring_places import files, inputs, outputs


@pytest.mark.nightly
def test_a_killed_training_ends_with_the_same_bytes(
    trained: Path, training_data: object, tmp_path: Path, kill_and_count: Callable[..., int]
) -> None:
    command = ["train-anchoring", "--processed", str(training_data.processed), "--params", str(training_data.params)]
    command += ["--out", "models/anchoring", "--reports", "reports"]
    assert 0 < kill_and_count(command, tmp_path) < 12
    run(training_data.read(), inputs(training_data, tmp_path), outputs(tmp_path))
    assert files(tmp_path) == files(trained)


def test_a_finished_training_goes_on_with_more_steps_and_ends_with_the_same_bytes(
    training_data: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    constant = ("train_anchoring.learning_rate_decay=none", "train_anchoring.noise_shift=1")

    def train(root: Path, *changes: str) -> str:
        run(training_data.read(*constant, *changes), inputs(training_data, root), outputs(root))
        return capsys.readouterr().err

    once, again = tmp_path / "once", tmp_path / "again"
    train(once)
    assert [path.name for path in (once / ".dynamicid/resume").rglob("step-*")] == ["step-00000012"]
    train(again, "train_anchoring.steps=5")  # ends between two rows of the loss curve
    few = files(again)
    assert "resumed at step 5 of 12" in train(again)
    assert files(again) == files(once)
    assert "resumed" not in train(again, "train_anchoring.steps=5"), "fewer steps begin again"
    assert files(again) == few
    assert "resumed at step 12 of 12" in train(again, "train_anchoring.log_every=4")


def test_a_training_whose_rate_depends_on_its_steps_is_not_continued(
    training_data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def train(*changes: str, **more: Path) -> None:
        run(training_data.read(*changes), inputs(training_data, tmp_path, **more), outputs(tmp_path))

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.stages.train_anchoring.write_results", stop)
        with pytest.raises(KeyboardInterrupt):
            train("train_anchoring.steps=3")
    last = max((tmp_path / ".dynamicid/resume").rglob("step-*"))
    with pytest.raises(UserError, match=r"another number of steps, on which its learning rate.*train_anchoring\.start"):
        train(resume_from=last)


def test_it_starts_from_a_registered_adapter_with_a_wider_lora(
    trained: Path, training_data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.registry.model_uri.adapter_folder", lambda *_: trained / "models/anchoring")
    rank = training_data.read().train_anchoring.sizes.lora_rank
    start = ("train_anchoring.start_from=models:/dynamicid/1", "train_anchoring.steps=4")
    params = training_data.read(*start, f"train_anchoring.sizes.lora_rank={rank + 2}")
    metrics = run(params, inputs(training_data, tmp_path), outputs(tmp_path))
    before = json.loads((trained / "reports/metrics.json").read_text())
    assert metrics["probe_initial"] == pytest.approx(before["probe_final"], rel=1e-4)
    config = json.loads((tmp_path / "models/anchoring/config.json").read_text())
    assert config["sizes"]["lora_rank"] == rank + 2


def test_it_starts_from_a_folder_too(trained: Path, training_data: object, tmp_path: Path) -> None:
    start = trained / "models/anchoring"
    params = training_data.read(f"train_anchoring.start_from={start}", "train_anchoring.steps=3")
    metrics = run(params, inputs(training_data, tmp_path), outputs(tmp_path))
    before = json.loads((trained / "reports/metrics.json").read_text())
    assert metrics["probe_initial"] == pytest.approx(before["probe_final"], rel=1e-4)
    with pytest.raises(UserError, match=r"nowhere: no adapter here \(config\.json is missing\)"):
        run(
            training_data.read("train_anchoring.start_from=nowhere"), inputs(training_data, tmp_path), outputs(tmp_path)
        )


def test_the_adapter_of_another_base_is_no_start(training_data: object, tmp_path: Path, project: Path) -> None:
    shipped = project / "model/foundation/weights/adapter"
    params = training_data.read(f"train_anchoring.start_from={shipped}")
    with pytest.raises(
        UserError, match=r"trained on another base model than .*; train new weights \(start_from: null\)"
    ):
        run(params, inputs(training_data, tmp_path), outputs(tmp_path))


@pytest.mark.parametrize("stage", ["train_anchoring", "train_imr"])
def test_a_start_names_a_version_by_its_number(training_data: object, stage: str) -> None:
    for start in ("models:/dynamicid@champion", "models:/dynamicid/latest"):
        with pytest.raises(UserError, match=r"expected models:/NAME/NUMBER or the folder of an adapter"):
            training_data.read(f"{stage}.start_from={start}")


def test_a_training_goes_on_while_the_registry_of_its_start_is_away(
    trained: Path, training_data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> Path:
        raise StageFailed("no answer")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    asked, places = "pipelines.registry.model_uri.adapter_folder", (inputs(training_data, tmp_path), outputs(tmp_path))
    params = training_data.read("train_anchoring.start_from=models:/dynamicid/1", "train_anchoring.steps=3")
    with monkeypatch.context() as first:
        first.setattr(asked, lambda *_: trained / "models/anchoring")
        first.setattr("model.training.anchoring.train_anchoring", stop)
        with pytest.raises(KeyboardInterrupt):
            run(params, *places)
    monkeypatch.setattr(asked, away)
    assert run(params, *places)["probe_initial"]
    assert not list((places[0].state / "resume").glob("*/*/")), "nothing is kept of a finished training"
    with pytest.raises(StageFailed, match="no answer"):
        run(params, *places)


def test_the_copy_of_a_start_stays_while_another_training_uses_it(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, started = "pipelines.registry.model_uri.adapter_folder", ("models:/dynamicid/1", "train_anchoring", tmp_path)
    monkeypatch.setattr(asked, lambda *_: trained / "models/anchoring")
    with adapter_to_start_from(*started) as one:
        with adapter_to_start_from(*started) as other:
            assert other == one
        assert one.is_dir()
    assert not one.exists()


def test_checkpoints_of_a_training_from_another_adapter_are_not_resumed(
    trained: Path, training_data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another registry the same address is another model."""
    recorded: list[dict[str, str]] = []

    def record(_: str, __: object, hashes: dict[str, str], *___: object, **____: object) -> None:
        recorded.append(hashes)
        raise UserError("enough")

    monkeypatch.setattr("pipelines.stages.train_anchoring.training_run", record)
    other = shutil.copytree(trained / "models/anchoring", tmp_path / "other")
    (other / "adapter.safetensors").write_bytes((other / "adapter.safetensors").read_bytes()[:-1] + b"\0")
    params = training_data.read("train_anchoring.start_from=models:/dynamicid/1")
    for folder in (trained / "models/anchoring", other):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:9/{folder.name}")
        monkeypatch.setattr("pipelines.registry.model_uri.adapter_folder", lambda *_, found=folder: found)
        with pytest.raises(UserError, match="enough"):
            run(params, inputs(training_data, tmp_path), outputs(tmp_path))
    first, second = recorded
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == {"start"}


def test_a_missing_checkpoint_to_resume_from_is_named(training_data: object, tmp_path: Path) -> None:
    chosen = tmp_path / "step-00000099"
    with pytest.raises(UserError, match=r"step-00000099: no such checkpoint to resume from") as error:
        run(training_data.read(), inputs(training_data, tmp_path, resume_from=chosen), outputs(tmp_path))
    assert "\n" not in str(error.value)
