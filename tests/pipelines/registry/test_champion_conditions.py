"""Results may be compared if their judges are the same files with the same input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.core.params import load_params
from pipelines.registry.champion_metrics import champion_metrics, conditions
from pipelines.registry.decisions import Decision, add_decision
from pipelines.registry.gates import Champion
from pipelines.registry.registry import find_version, open_registry
from pipelines.registry.runs import open_run


def document(**judges: Any) -> dict[str, Any]:
    return {"evaluation_set": "e", "settings": {"steps": 20, "judges": {"recogniser": "file", **judges}}}


def test_another_normalisation_of_the_judge_is_another_condition() -> None:
    one, other = ({"sha256": "f", "size": 112, "mean": mean} for mean in (127.5, 0.0))
    assert conditions(document(recogniser=one)) == conditions(document(recogniser=dict(one)))
    assert conditions(document(recogniser=one)) != conditions(document(recogniser=other))
    assert conditions(document(bounds={"photos": 12})) != conditions(document(bounds={"photos": 1}))


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
