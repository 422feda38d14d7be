"""Both training stages on a base of XL's class: trained, resumed exactly, and not mixed up with one of 1.x."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.foundation.random_models import RandomModels, save_random_models
from model.network.adapter import Adapter
from model.network.base import load_base
from pipelines.core.errors import UserError
from pipelines.stages import train_anchoring, train_imr
from tests.pipelines.stages.anchoring_places import files, inputs, outputs
from tests.random_bases import save_xl


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> RandomModels:
    folder = tmp_path_factory.mktemp("xl")
    plain = save_random_models(folder / "plain", channels=(8, 16))
    torch.manual_seed(0)
    return RandomModels(save_xl(folder / "sd", plain.pipeline), plain.image_encoder)


def settings(models: RandomModels, *more: str) -> list[str]:
    return [f"base.pipeline={models.pipeline}", f"base.image_encoder={models.image_encoder}", *more]


def test_both_stages_train_and_resume_to_the_same_bytes(
    training_data: object, xl: RandomModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    changes = settings(xl, "train_anchoring.learning_rate_decay=none", "train_anchoring.noise_shift=1")
    changes.append("train_anchoring.gradient_checkpointing=true")
    for root, steps in ((once, 12), (again, 5), (again, 12)):
        params = training_data.read(*changes, f"train_anchoring.steps={steps}")
        metrics = train_anchoring.run(params, inputs(training_data, root), outputs(root))
    assert "resumed at step 5 of 12" in capsys.readouterr().err
    assert metrics["probe_final"] < metrics["probe_initial"]
    assert files(again) == files(once)

    def imr(root: Path, steps: int) -> dict[str, bytes]:
        place = train_imr.Inputs(training_data.processed, root / ".dynamicid", anchoring=once / "models/anchoring")
        made = train_imr.Outputs(root / "models/adapter", root / "reports/imr.csv", root / "reports/imr.json")
        train_imr.run(
            training_data.read(*settings(xl, "train_imr.learning_rate_decay=none", f"train_imr.steps={steps}")),
            place,
            made,
        )
        return files(root)

    whole = imr(tmp_path / "imr", 12)
    imr(tmp_path / "resumed", 4)
    assert imr(tmp_path / "resumed", 12) == whole
    adapter = Adapter.load(tmp_path / "imr/models/adapter", load_base(xl.pipeline, xl.image_encoder).unet)
    assert adapter.takes_face_prompts


@pytest.mark.nightly
@pytest.mark.parametrize("stage", ["train-anchoring", "train-imr"])
def test_a_killed_training_ends_with_the_same_bytes(
    training_data: object, xl: RandomModels, tmp_path: Path, kill_and_count: Callable[..., int], stage: str
) -> None:
    first = tmp_path / "first"
    few = training_data.read(*settings(xl, "train_anchoring.steps=2"))
    train_anchoring.run(few, inputs(training_data, first), outputs(first))
    anchoring = first / "models/anchoring"
    command = [stage, "--processed", str(training_data.processed), "--params", str(training_data.params)]
    command += ["--reports", "reports", "--out", "models/adapter"]
    command += ["--anchoring", str(anchoring)] if stage == "train-imr" else []
    for change in settings(xl):
        command += ["--set", change]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    assert 0 < kill_and_count(command, killed) < 12
    params = training_data.read(*settings(xl))
    for root in (killed, whole):
        place = root / "models/adapter", root / "reports/losses.csv", root / "reports/metrics.json"
        if stage == "train-imr":
            given = train_imr.Inputs(training_data.processed, root / ".dynamicid", anchoring=anchoring)
            train_imr.run(params, given, train_imr.Outputs(*place))
        else:
            train_anchoring.run(params, inputs(training_data, root), train_anchoring.Outputs(*place))
    assert files(killed) == files(whole)


def test_an_adapter_of_another_base_is_refused_with_both_named(
    training_data: object, xl: RandomModels, tmp_path: Path
) -> None:
    plain = training_data.read().base
    bases = {"plain": RandomModels(Path(plain.pipeline), Path(plain.image_encoder)), "xl": xl}
    for name, models in bases.items():
        changes = settings(models, "train_anchoring.steps=1", "train_anchoring.identity.weight=0")
        train_anchoring.run(
            training_data.read(*changes), inputs(training_data, tmp_path / name), outputs(tmp_path / name)
        )
    for made, other in (("plain", "xl"), ("xl", "plain")):
        start = tmp_path / made / "models/anchoring"
        changes = settings(bases[other], "train_anchoring.steps=1", f"train_anchoring.start_from={start}")
        refused = f"trained on another base model than {bases[other].pipeline}, on {bases[made].pipeline}"
        with pytest.raises(UserError, match=refused):
            train_anchoring.run(
                training_data.read(*changes), inputs(training_data, tmp_path / other), outputs(tmp_path / "c")
            )
        with pytest.raises(UserError) as error:
            train_anchoring.run(
                training_data.read(*changes, "base.allow_other=true"),
                inputs(training_data, tmp_path / other),
                outputs(tmp_path / "c"),
            )
        assert str(bases[made].pipeline) in str(error.value)
        assert str(bases[other].pipeline) in str(error.value)
