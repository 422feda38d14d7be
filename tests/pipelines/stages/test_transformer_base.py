"""Both training stages on a transformer base: trained by flow matching, resumed exactly, refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model.foundation.random_models import RandomModels, save_random_flux, save_random_models
from model.network.adapter import Adapter
from model.network.base import load_base
from pipelines.core.errors import UserError
from pipelines.stages import train_anchoring, train_imr
from tests.pipelines.stages.anchoring_places import files, inputs, outputs


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> RandomModels:
    return save_random_flux(tmp_path_factory.mktemp("flux"))


def settings(models: RandomModels, *more: str) -> list[str]:
    return [f"base.pipeline={models.pipeline}", f"base.image_encoder={models.image_encoder}", *more]


def test_both_stages_train_and_resume_to_the_same_bytes(
    training_data: object, flux: RandomModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    changes = settings(flux, "train_anchoring.learning_rate_decay=none", "train_anchoring.noise_shift=1")
    for root, steps in ((once, 12), (again, 5), (again, 12)):
        params = training_data.read(*changes, f"train_anchoring.steps={steps}")
        metrics = train_anchoring.run(params, inputs(training_data, root), outputs(root))
    assert "resumed at step 5 of 12" in capsys.readouterr().err
    assert metrics["probe_final"] < metrics["probe_initial"]
    assert files(again) == files(once)
    assert "identity" in outputs(once).losses.read_text(), "the recogniser sees the latents that a velocity implies"

    def imr(root: Path, steps: int) -> dict[str, bytes]:
        place = train_imr.Inputs(training_data.processed, root / ".dynamicid", anchoring=once / "models/anchoring")
        made = train_imr.Outputs(root / "models/adapter", root / "reports/imr.csv", root / "reports/imr.json")
        params = training_data.read(*settings(flux, "train_imr.learning_rate_decay=none", f"train_imr.steps={steps}"))
        found = train_imr.run(params, place, made)
        assert found["imr"] != found["probe_initial"]
        return files(root)

    whole = imr(tmp_path / "imr", 12)
    imr(tmp_path / "resumed", 4)
    assert imr(tmp_path / "resumed", 12) == whole
    base = load_base(flux.pipeline, flux.image_encoder)
    adapter = Adapter.load(tmp_path / "imr/models/adapter", base.denoiser)
    assert adapter.takes_face_prompts
    assert any(bool(processor.to_v_ip.weight.any()) for processor in adapter.processors)
    config = json.loads((tmp_path / "imr/models/adapter/config.json").read_text())
    assert (config["format"], config["denoiser"]) == (4, "FluxTransformer2DModel")


@pytest.mark.nightly
def test_a_killed_training_ends_with_the_same_bytes(
    training_data: object, flux: RandomModels, tmp_path: Path, kill_and_count: Callable[..., int]
) -> None:
    changes = settings(flux)
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


def test_what_does_not_fit_is_named(training_data: object, flux: RandomModels, tmp_path: Path) -> None:
    def train(*changes: str) -> None:
        params = training_data.read("train_anchoring.steps=1", "train_anchoring.identity.weight=0", *changes)
        train_anchoring.run(params, inputs(training_data, tmp_path), outputs(tmp_path))

    with pytest.raises(UserError, match="method ip_adapter_faceid has no layers for a FluxTransformer2DModel"):
        train(*settings(flux, "train_anchoring.method=ip_adapter_faceid"))
    train(*settings(flux))
    unet = settings(save_random_models(tmp_path / "unet"), "base.allow_other=true")
    with pytest.raises(UserError, match="made for a FluxTransformer2DModel, the base has a UNet2DConditionModel"):
        train(*unet, f"train_anchoring.start_from={tmp_path / 'models/anchoring'}")
