"""The stage itself, from files to files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import Params, load_params
from pipelines.evaluation.variants import METRICS
from pipelines.stages.evaluate import Inputs, Outputs, run

CHANGES = ("people=4", "steps=1", "pairs=1", "bootstrap=50", "variant_cells=2", "batch_size=64", "diversity_seeds=2")


def params_of(project: Path, **values: object) -> Params:
    # The shipped adapter fits the shipped base alone.
    changes = [f"evaluate.{change}" for change in (*CHANGES, "shipped_adapter=null")]
    changes += [f"{name.replace('__', '.')}={value}" for name, value in values.items()]
    return load_params(project / "profiles" / "tiny.yaml", changes)


@pytest.mark.realdata
def test_pictures_without_a_face_count_nothing_and_every_number_is_still_there(
    *,
    processed: Path,
    adapter_folder: tuple[Path, Path, Path],
    judge_files: dict[str, Path],
    clip_folder: Path,
    project: Path,
    shared: Path,
    tmp_path: Path,
) -> None:
    params = params_of(
        project,
        base__pipeline=adapter_folder[0],
        base__image_encoder=adapter_folder[1],
        preprocess__insightface_name="buffalo_real_mini",
        preprocess__insightface_root=shared / "weights" / "insightface",
        evaluate__judges__recogniser=shared / "weights" / "judge" / "mobilefacenet128.onnx",
        evaluate__judges__expression_pose=judge_files["expression_pose"],
        evaluate__judges__clip=clip_folder,
    )
    outputs = Outputs(tmp_path / "reports" / "metrics.json", tmp_path / "reports" / "index.html")
    document = run(params, Inputs(processed, adapter_folder[2]), outputs)
    assert json.loads(outputs.metrics.read_text()) == json.loads(json.dumps(document))
    model = document["model"]
    assert tuple(model) == METRICS
    # A detector of real faces finds none in noise.
    for metric in ("face_rate", "id_similarity", "own_over_other", "expression_accuracy", "gate_in_face", "leakage"):
        assert model[metric]["value"] == 0
    assert model["yaw_mae"]["value"] == pytest.approx((120 + 90 + 60 + 90 + 120) / 5)
    for metric, values in document["by_unit"].items():
        known = [value for value in values if value is not None]
        if known:
            assert sum(known) / len(known) == pytest.approx(model[metric]["value"], abs=1e-5), metric
    assert len(document["by_unit"]["id_similarity"]) == params.evaluate.people
    assert document["settings"]["sampler"] == "ddim"
    assert len(document["settings"]["adapter"]) == 64
    page = outputs.report.read_text()
    assert "no face" in page
    assert str(tmp_path) not in page + outputs.metrics.read_text()
    assert str(project) not in page + outputs.metrics.read_text()


def test_a_missing_judge_shows_before_anything_is_drawn(processed: Path, project: Path, tmp_path: Path) -> None:
    params = params_of(project, evaluate__judges__recogniser=tmp_path / "none.onnx")
    with pytest.raises(UserError, match=r"evaluate\.judges\.recogniser"):
        run(params, Inputs(processed, tmp_path), Outputs(tmp_path / "metrics.json", tmp_path / "index.html"))
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.realdata
def test_an_adapter_that_cannot_be_judged_is_named(
    *,
    processed: Path,
    adapter_folder: tuple[Path, Path, Path],
    judge_files: dict[str, Path],
    clip_folder: Path,
    project: Path,
    shared: Path,
    tmp_path: Path,
) -> None:
    from model.network.adapter import Adapter
    from model.network.base import load_base

    params = params_of(
        project,
        base__pipeline=adapter_folder[0],
        base__image_encoder=adapter_folder[1],
        preprocess__insightface_name="buffalo_real_mini",
        preprocess__insightface_root=shared / "weights" / "insightface",
        evaluate__judges__recogniser=judge_files["recogniser"],
        evaluate__judges__expression_pose=judge_files["expression_pose"],
        evaluate__judges__clip=clip_folder,
    )
    outputs = Outputs(tmp_path / "metrics.json", tmp_path / "index.html")
    with pytest.raises(UserError, match=r"nowhere.*expected an adapter folder"):
        run(params, Inputs(processed, tmp_path / "nowhere"), outputs)
    base = load_base(adapter_folder[0], adapter_folder[1])
    sizes = json.loads((adapter_folder[2] / "config.json").read_text())["sizes"]
    Adapter.create(base.unet, base.image_encoder, sizes, 0.3).save(
        tmp_path / "anchored", base.reference("sd", "image_encoder")
    )
    with pytest.raises(UserError, match="no IMR yet; run train_imr"):
        run(params, Inputs(processed, tmp_path / "anchored"), outputs)
    beside = params.evaluate.model_copy(update={"shipped_adapter": str(tmp_path / "anchored")})
    with pytest.raises(UserError, match=r"anchored: .* no IMR yet.*; evaluate\.shipped_adapter=null leaves"):
        run(params.model_copy(update={"evaluate": beside}), Inputs(processed, adapter_folder[2]), outputs)
