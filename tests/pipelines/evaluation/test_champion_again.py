"""A champion judged on another evaluation set is judged again on the challenger's, on real pictures and only once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params
from pipelines.core.sections.evaluation import Gate
from pipelines.evaluation.evaluate import evaluate
from pipelines.registry.champion_metrics import champion_metrics, conditions
from pipelines.registry.gates import Champion, judge
from pipelines.registry.registry import find_version, open_registry
from tests.pipelines.evaluation.conftest import assert_close


@pytest.mark.realdata
@pytest.mark.nightly
def test_the_champion_is_judged_on_the_challengers_set_once(
    *,
    random_params: Params,
    processed: Path,
    adapter_folder: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow

    params = random_params
    for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME"):
        monkeypatch.delenv(name, raising=False)
    model = tmp_path / "model" / "artifacts"
    shutil.copytree(adapter_folder[2], model / "adapter")
    (model / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)))
    files = {"metrics": tmp_path / "metrics.json", "report": tmp_path / "index.html"}
    challenger = evaluate(params, processed, adapter_folder[2], **files)
    old = {**challenger, "evaluation_set": "0" * 64}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.json").write_text(json.dumps(old))

    client = open_registry(tmp_path)
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(tmp_path / "old" / "metrics.json"))
    client.create_registered_model("dynamicid")
    tags = {"dynamicid.evaluate_run": run.info.run_id}
    client.create_model_version("dynamicid", model.parent.as_uri(), tags=tags)
    version = find_version(client, "models:/dynamicid/1")

    # The profile's shipped adapter does not fit this champion's base and takes no part in the comparison.
    shipping = params.evaluate.model_copy(update={"shipped_adapter": "model/foundation/weights/adapter"})
    profile = params.model_copy(update={"evaluate": shipping})

    def compare(against: dict[str, Any]) -> dict[str, Any]:
        return champion_metrics(version, profile, processed, against, tmp_path).metrics

    assert compare(old) == old, "judged under the same conditions already"
    assert count(client) == 0
    again = compare(challenger)
    assert conditions(again) == conditions(challenger)
    gates = profile.register_.gates
    ours, theirs = (judge(gates, challenger, Champion("1", one)) for one in (again, challenger))
    assert [one.passed for one in ours] == [one.passed for one in theirs]
    assert_close(again["model"], challenger["model"])  # the same adapter on the same set, in other batches
    assert "text_only" in challenger
    assert "text_only" not in again, "what no gate compares is not drawn"
    assert count(client) == 1
    assert compare(challenger) == again
    assert count(client) == 1, "what was judged once is taken from MLflow"
    more = [*gates, Gate(metric="clip_t", variant="text_only", max_regression=0.1)]
    profile = profile.model_copy(update={"register_": profile.register_.model_copy(update={"gates": more})})
    assert "text_only" in compare(challenger), "a gate on another variant has it drawn"
    assert "text_only" in compare(challenger)
    assert count(client) == 2

    for update, named in (
        ({"base": params.base.model_copy(update={"resolution": 128})}, "base.resolution 64"),
        ({"preprocess": params.preprocess.model_copy(update={"insightface_name": "x"})}, "insightface_name buffalo"),
    ):
        away = profile.model_copy(update=update)
        with pytest.raises(UserError, match=f"it was trained with .*{named}"):
            champion_metrics(version, away, processed, {**challenger, "evaluation_set": "1" * 64}, tmp_path)

    stale = {**challenger, "settings": {**challenger["settings"], "steps": 99}}
    with pytest.raises(StageFailed, match=r"champion v1 cannot be compared: .* made from other data or settings"):
        compare(stale)
    assert count(client) == 2


def test_results_from_before_a_setting_compare_with_those_that_leave_it_off() -> None:
    def judged(**settings: float) -> dict[str, Any]:
        return {"evaluation_set": "0" * 64, "settings": {"guidance": 3.0, "steps": 20, **settings}}

    assert conditions(judged(guidance_rescale=0.0)) == conditions(judged())
    assert conditions(judged(layout_steps=0)) == conditions(judged())
    assert conditions(judged(layout_steps=8)) != conditions(judged())
    assert conditions(judged(guidance_rescale=0.7)) != conditions(judged())
    assert conditions(judged(guidance=0.0)) != conditions(judged(guidance=3.0))


def count(client: Any) -> int:
    experiment = client.get_experiment_by_name("dynamicid").experiment_id
    return len(client.search_runs([experiment], filter_string="tags.`dynamicid.stage` = 'evaluate_champion'"))
