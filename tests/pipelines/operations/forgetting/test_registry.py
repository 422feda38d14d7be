"""MLflow itself finds the runs on a person's photos: of thousands of others nothing is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from pipelines.operations.forgetting.registry import traces
from pipelines.registry.live import SAMPLES_OF
from pipelines.registry.registry import open_registry
from pipelines.registry.runs import open_run

_HERS = (
    {"dynamicid.dataset_md5": "a1.dir"},
    {SAMPLES_OF: "a1.dir"},
    {"dynamicid.output.data/processed": "b2.dir"},
    {"dynamicid.output.data/faces": "b2.dir"},
    {"dynamicid.made_from": json.dumps({"outputs": {"a place of old": "b2.dir"}})},
    {"dynamicid.stage": "evaluate_champion"},
)
_OTHERS = (
    {"dynamicid.dataset_md5": "c3.dir"},
    {"dynamicid.made_from": json.dumps({"stages": {"preprocess": "b2.dir"}})},
    {"dynamicid.stage": "evaluate_champion", "dynamicid.dataset_md5": "c3.dir"},
    {},
)


def test_only_the_runs_of_a_person_are_read(
    mlflow_checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_registry(mlflow_checkout)
    (tmp_path / "index.html").write_text("<p>pictures</p>")
    hers = []
    for number, tags in enumerate((*_HERS, *_OTHERS, *_OTHERS[-1:] * 10)):
        with open_run(client, "evaluate", tags) as run_id:
            client.log_artifact(run_id, str(tmp_path / "index.html"))
        hers += [run_id] if number < len(_HERS) else []
    read: set[str] = set()
    search = MlflowClient.search_runs

    def noted(self: MlflowClient, *given: Any, **named: Any) -> Any:
        page = search(self, *given, **named)
        read.update(run.info.run_id for run in page)
        return page

    monkeypatch.setattr(MlflowClient, "search_runs", noted)
    found, silent = traces(mlflow_checkout, {"a1.dir"}, {"b2.dir"}, frozenset())
    assert silent == []
    assert found.runs == sorted(hers[:-1])
    assert sorted(one["run_id"] for one in found.artefacts) == sorted(hers), "an evaluation without a dataset, too"
    assert len(read) <= len(hers) + 2, "and the two whose tags are alike"
