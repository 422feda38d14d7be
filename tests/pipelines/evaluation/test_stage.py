"""The evaluate stage itself, from input files to output files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import Params, load_params
from pipelines.evaluation.evaluate import load_renderer
from pipelines.evaluation.plan import PictureSpec
from pipelines.evaluation.variants import METRICS, PEOPLE_OF
from pipelines.stages.evaluate import Inputs, Outputs, run

Adapter = tuple[Path, Path, Path]


@pytest.mark.realdata
def test_pictures_without_a_face_count_nothing_and_every_number_is_still_there(
    *,
    processed: Path,
    adapter_folder: Adapter,
    random_params: Params,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Networks that know photographs cannot judge drawn people: here they are taken as they are.
    monkeypatch.setattr("pipelines.evaluation.protocol.measure", lambda *_: {})
    outputs = Outputs(tmp_path / "reports" / "metrics.json", tmp_path / "reports" / "index.html")
    document = run(random_params, Inputs(processed, adapter_folder[2], work=None), outputs)
    assert json.loads(outputs.metrics.read_text()) == json.loads(json.dumps(document))
    model = document["model"]
    assert tuple(model) == tuple(name for name in METRICS if PEOPLE_OF.get(name, 2) == 2)
    # A detector of real faces finds none in noise.
    for metric in ("face_rate", "id_similarity", "own_over_other", "expression_accuracy", "gate_in_face", "binding"):
        assert model[metric]["value"] == 0
    assert model["leakage"]["value"] == 1
    assert model["yaw_mae"]["value"] == pytest.approx((120 + 90 + 60 + 90 + 120) / 5)
    for metric, values in document["by_unit"].items():
        known = [value for value in values if value is not None]
        if known:
            assert sum(known) / len(known) == pytest.approx(model[metric]["value"], abs=1e-5), metric
    assert len(document["by_unit"]["id_similarity"]) == random_params.evaluate.people
    assert document["settings"]["sampler"] == "ddim"
    assert len(document["settings"]["adapter"]) == 64
    page = outputs.report.read_text()
    assert "no face" in page
    assert str(tmp_path) not in page + outputs.metrics.read_text()
    assert str(project) not in page + outputs.metrics.read_text()


def test_a_missing_judge_shows_before_anything_is_drawn(processed: Path, project: Path, tmp_path: Path) -> None:
    missing = [f"evaluate.judges.recogniser.path={tmp_path / 'none.onnx'}", "evaluate.shipped_adapter=null"]
    params = load_params(project / "profiles" / "tiny.yaml", missing)
    with pytest.raises(UserError, match=r"evaluate\.judges\.recogniser"):
        run(params, Inputs(processed, tmp_path, work=None), Outputs(tmp_path / "metrics.json", tmp_path / "index.html"))
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.realdata
def test_an_adapter_that_cannot_be_judged_is_named(
    processed: Path, adapter_folder: Adapter, random_params: Params, tmp_path: Path
) -> None:
    from model.network.adapter import Adapter
    from model.network.base import load_base

    outputs = Outputs(tmp_path / "metrics.json", tmp_path / "index.html")
    with pytest.raises(UserError, match=r"nowhere.*expected an adapter folder"):
        run(random_params, Inputs(processed, tmp_path / "nowhere", work=None), outputs)
    base = load_base(adapter_folder[0], adapter_folder[1])
    sizes = json.loads((adapter_folder[2] / "config.json").read_text())["sizes"]
    anchored = tmp_path / "anchored"
    Adapter.create(base.unet, base.image_encoder, sizes, 0.3).save(anchored, base.reference("sd", "image_encoder"))
    with pytest.raises(UserError, match="no IMR yet; run train_imr"):
        run(random_params, Inputs(processed, anchored, work=None), outputs)
    beside = random_params.evaluate.model_copy(update={"shipped_adapter": str(anchored)})
    with pytest.raises(UserError, match=r"anchored: .* no IMR yet.*; evaluate\.shipped_adapter=null leaves"):
        run(
            random_params.model_copy(update={"evaluate": beside}),
            Inputs(processed, adapter_folder[2], work=None),
            outputs,
        )


@pytest.mark.realdata
@pytest.mark.parametrize("method", ["ip_adapter_faceid_plus", "consistentid"])
def test_another_method_is_asked_in_words_and_compared_with_the_text_alone(
    *,
    method: str,
    processed: Path,
    adapter_folder: Adapter,
    random_params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from model.network.adapter import Adapter
    from model.network.base import empty_states, load_base
    from model.network.methods import METHODS as KNOWN
    from pipelines.commands.summary import summary

    base = load_base(adapter_folder[0], adapter_folder[1])
    sizes = {"lora_rank": 4, "parts_width": 64, "parts_depth": 1}
    other = Adapter.create(base.unet, base.image_encoder, sizes, method=KNOWN[method])
    other.encode_null_tokens(empty_states(base.image_encoder))
    other.save(tmp_path / "other", base.reference("sd", "image_encoder"))
    monkeypatch.setattr("pipelines.evaluation.protocol.measure", lambda *_: {})
    outputs = Outputs(tmp_path / "metrics.json", tmp_path / "index.html")
    document = run(random_params, Inputs(processed, tmp_path / "other", work=None), outputs)
    printed = capsys.readouterr().err
    assert "no part that without_gate, without_imr, true_tokens leaves out: not drawn" in printed
    assert ("several people are drawn without the facial parts" in printed) == KNOWN[method].facial_parts
    assert document["made_by"]["method"] == method
    assert {"model", "text_only", "ceiling", "floor"} <= document.keys()
    assert not {"without_gate", "without_imr", "true_tokens"} & document.keys()
    assert "gate_in_face" not in document["model"]
    assert "clip_t" in document["model"]
    assert "without attention gate" not in outputs.report.read_text()
    summary(metrics=outputs.metrics, report=outputs.report)
    renderer = load_renderer(random_params, tmp_path / "other")
    spec = PictureSpec("a photo", 1, np.zeros((renderer.pipe.adapter.tokens_per_person, 64), np.float32))
    assert renderer.draw([spec])[0].gate is None, "as doctor's estimate draws"
    for change in ({"protocol": "paper"}, {"sweeps": True}):
        asked = random_params.model_copy(update={"evaluate": random_params.evaluate.model_copy(update=change)})
        with pytest.raises(UserError, match=rf"compares the gate and the IMR of DynamicID; {method} has"):
            run(asked, Inputs(processed, tmp_path / "other", work=None), outputs)
