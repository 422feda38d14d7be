"""Results may be compared if their judges are the same files with the same input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.core.params import load_params
from pipelines.registry.champion_metrics import champion_metrics, conditions, with_recogniser_input
from pipelines.registry.decisions import Decision, add_decision
from pipelines.registry.gates import Champion
from pipelines.registry.registry import find_version, open_registry
from pipelines.registry.runs import open_run

PARAMS = {f"evaluate.judges.recogniser_{name}": value for name, value in (("size", "112"), ("mean", "127.5"))}


def document(**judges: Any) -> dict[str, Any]:
    return {"evaluation_set": "e", "settings": {"steps": 20, "judges": {"recogniser": "file", **judges}}}


def test_another_normalisation_of_the_judge_is_another_condition() -> None:
    one, other = ([112, 127.5, 127.5], [112, 0.0, 255.0])
    assert conditions(document(recogniser_input=one)) != conditions(document(recogniser_input=other))


def test_results_of_earlier_releases_get_the_input_that_was_recorded_with_them() -> None:
    recorded = {**PARAMS, "evaluate.judges.recogniser_scale": "127.5"}
    old = with_recogniser_input(document(), recorded)
    assert conditions(old) == conditions(document(recogniser_input=[112, 127.5, 127.5]))
    assert with_recogniser_input(document(), PARAMS) == document(), "where it is unknown, the champion is judged again"
    assert conditions(document()) != conditions(old)
    assert with_recogniser_input({"evaluation_set": "e"}, recorded) == {"evaluation_set": "e"}


def test_the_figures_of_a_champions_last_evaluation_are_compared(
    mlflow_checkout: Path, project: Path, compared: Any
) -> None:
    compared(None)
    client, params = open_registry(mlflow_checkout), load_params(project / "params.yaml")

    def judged(value: float) -> Champion:
        """Evaluate v1 with this value, let the gates promote it, and return it as the champion of a comparison."""
        figures = {**document(), "model": {"id_similarity": {"value": value}}}
        (mlflow_checkout / "metrics.json").write_text(json.dumps(figures))
        with open_run(client, "evaluate", {}) as run_id:
            client.log_artifact(run_id, str(mlflow_checkout / "metrics.json"))
        version = find_version(client, "models:/dynamicid/1")
        evidence = {"evaluate_run": run_id, "gates": []}
        add_decision(client, version, Decision("promoted", "gates", "1", evidence=evidence))
        version = find_version(client, "models:/dynamicid/1")
        return champion_metrics(version, params, mlflow_checkout, document(), mlflow_checkout)

    assert [judged(value).metrics["model"]["id_similarity"]["value"] for value in (0.9, 0.5)] == [0.9, 0.5]
