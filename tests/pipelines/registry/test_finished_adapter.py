"""An adapter that was not trained here is evaluated, registered and judged like every other, once."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import load_params
from pipelines.operations.forgetting.registry import traces
from pipelines.registry.drift import against_champion as drift
from pipelines.registry.finished_adapter import register_finished
from pipelines.registry.registry import find_version, open_registry
from pipelines.registry.results import result_of
from pipelines.registry.runs import open_run
from pipelines.stages import register
from tests.pipelines.registry.conftest import make_result, small_chain

PROCESSED = Path("data/processed")


@pytest.fixture
def root(tmp_path: Path, project: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a result, without versions; an evaluation writes the figure that the adapter's file states."""
    root = tmp_path / "checkout"
    small_chain(root, project)
    shutil.copy2(empty_database, root / "mlflow.db")
    make_result(root, 0.5)

    def evaluate(*given: Any, metrics: Path, report: Path, **_: Any) -> dict[str, Any]:
        value = json.loads((given[2] / "config.json").read_text())["quality"]
        interval = {"value": value, "low": value - 0.05, "high": value + 0.05}
        document = {"evaluation_set": "e" * 64, "model": {"id_similarity": interval}, "settings": {"sampler": "ddim"}}
        metrics.write_text(json.dumps(document))
        report.write_text("<p>pictures</p>")
        evaluated.append(time.time())
        return document

    evaluated: list[float] = []
    monkeypatch.setattr("pipelines.evaluation.evaluate.evaluate", evaluate)
    monkeypatch.setattr("tests.pipelines.registry.test_finished_adapter.EVALUATED", evaluated)
    return root


EVALUATED: list[float] = []  # when they ended


def finished(folder: Path, quality: float) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"quality": quality}))
    return folder


def test_it_is_the_first_champion_and_the_chains_adapter_is_compared_with_it(root: Path, tmp_path: Path) -> None:
    params, adapter = load_params(root / "params.yaml"), finished(tmp_path / "shipped", 0.55)
    first = register_finished(params, root, adapter, PROCESSED)
    assert (first.decision, first.version, first.champion, first.created) == ("promoted", "1", "1", True)
    version = find_version(open_registry(root), "models:/dynamicid@champion")
    assert version.tags["dynamicid.evaluate_run"] == first.evaluate_run
    evaluation = open_registry(root).get_run(str(first.evaluate_run))
    assert evaluation.info.start_time / 1000 <= EVALUATED[0], "its times are those of the evaluation"
    assert evaluation.data.tags["mlflow.source.name"] == "dynamicid register"
    assert not {"dynamicid.dataset_version", "dynamicid.snapshot", "dynamicid.git_commit"} & version.tags.keys()
    assert "**Not trained here**" in version.description
    compared = drift.run(params, root, tmp_path / "drift")
    assert (compared.state, compared.champion) == ("not_trained_here", "1"), "it must not stop a retraining"
    with pytest.raises(UserError, match="its training data is unknown"):
        drift.run(params, root, tmp_path / "drift", "models:/dynamicid/1")

    again = register_finished(params, root, adapter, PROCESSED)
    assert (again.version, again.created, again.decision) == ("1", False, "promoted")
    assert len(EVALUATED) == 1, "an adapter that is registered is not evaluated again"

    challenger = register.run(params, register.Inputs(root))
    assert (challenger.version, challenger.decision, challenger.compared_with) == ("2", "refused", "1")
    assert challenger.failed_gates == ("id_similarity 0.500 < 0.530 (champion v1: 0.550)",)
    assert len(EVALUATED) == 1, "the champion's figures are those of its registration"


def test_the_pictures_of_its_evaluation_are_found_by_the_people_on_them(root: Path, tmp_path: Path) -> None:
    params, adapter = load_params(root / "params.yaml"), finished(tmp_path / "shipped", 0.55)
    done = register_finished(params, root, adapter, PROCESSED)
    dataset = result_of(root, "preprocess").dataset_md5
    assert dataset is not None
    found, _ = traces(root, {dataset}, set(), frozenset(["test"]))
    assert [(item["run_id"], item["path"]) for item in found.artefacts] == [(done.evaluate_run, "index.html")]
    listed = {"name": "dynamicid", "version": "1", "aliases": ["challenger", "champion"]}
    assert found.models == [{**listed, "trained_on": False, "evaluated_on": True}], "it was trained on other people"


def test_an_evaluation_by_an_earlier_release_without_a_dataset_may_show_anybody(root: Path, tmp_path: Path) -> None:
    client = open_registry(root)
    (tmp_path / "index.html").write_text("<p>pictures</p>")
    with open_run(client, "evaluate dynamicid v1", {"dynamicid.stage": "evaluate_champion"}) as run_id:
        client.log_artifact(run_id, str(tmp_path / "index.html"))
    found, _ = traces(root, {"another"}, set(), frozenset(["test"]))
    assert [(item["run_id"], item["path"]) for item in found.artefacts] == [(run_id, "index.html")]
    assert traces(root, {"another"}, set(), frozenset(["train"]))[0].artefacts == [], "nobody held out"


def test_without_a_known_dataset_no_picture_is_kept(root: Path, tmp_path: Path) -> None:
    (root / "dvc.lock").unlink()
    done = register_finished(load_params(root / "params.yaml"), root, finished(tmp_path / "a", 0.55), PROCESSED)
    files = [item.path for item in open_registry(root).list_artifacts(done.evaluate_run)]
    assert sorted(files) == ["all_metrics.json", "metrics.json"]


def test_its_evaluation_is_a_run_with_figures_and_parameters(root: Path, tmp_path: Path) -> None:
    done = register_finished(load_params(root / "params.yaml"), root, finished(tmp_path / "a", 0.55), PROCESSED)
    run = open_registry(root).get_run(done.evaluate_run)
    assert run.data.metrics == {"id_similarity": 0.55}
    assert run.data.params["evaluate.steps"] == "20"
    assert run.data.tags["dynamicid.evaluation_set"] == "e" * 64
    assert "0.500 … 0.600" in run.data.tags["mlflow.note.content"]


def test_one_that_fails_its_bounds_is_a_version_and_no_champion(root: Path, tmp_path: Path) -> None:
    params = load_params(root / "params.yaml")
    done = register_finished(params, root, finished(tmp_path / "weak", 0.2), PROCESSED)
    assert (done.decision, done.version, done.champion) == ("refused", "1", None)
    assert done.failed_gates == ("id_similarity 0.200 < 0.300",)


def test_what_is_missing_is_named_and_nothing_is_registered(root: Path, tmp_path: Path) -> None:
    params = load_params(root / "params.yaml")
    with pytest.raises(UserError, match=r"nowhere: no adapter here"):
        register_finished(params, root, tmp_path / "nowhere", PROCESSED)
    with pytest.raises(UserError, match=r"data/none: missing, .* `dynamicid repro validate preprocess"):
        register_finished(params, root, finished(tmp_path / "shipped", 0.5), Path("data/none"))
    assert EVALUATED == []
    with pytest.raises(UserError, match="no such version"):
        find_version(open_registry(root), "models:/dynamicid/1")
