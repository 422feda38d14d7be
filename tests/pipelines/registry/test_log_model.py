"""An adapter becomes one version, wherever its registration ends and begins again; what somebody deleted stays so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import StageFailed
from pipelines.core.params import load_params
from pipelines.registry.champion_metrics import figures_problem
from pipelines.registry.decisions import decisions_of
from pipelines.registry.promotion import Registration
from pipelines.registry.recorder import Discarded, record_stage
from pipelines.registry.registry import champion_number, find_version, open_registry, versions_of
from pipelines.registry.runs import search_runs
from pipelines.stages import register as stage
from tests.pipelines.registry.conftest import make_result


@pytest.fixture(scope="module")
def better(registered: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with two versions, and a better result that nobody has registered."""
    root = tmp_path_factory.mktemp("better") / "checkout"
    shutil.copytree(registered.root, root, symlinks=True)
    make_result(root, 0.6)
    return root


@pytest.fixture
def root(better: Path, tmp_path: Path) -> Path:
    """A copy of that checkout, for one test."""
    shutil.copytree(better, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


def register(root: Path) -> Registration:
    return stage.run(load_params(root / "params.yaml"), stage.Inputs(root))


class Ended(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(method: str) -> Iterator[None]:
    """End the process at this method of MLflow's client, which then answers nothing any more."""
    from mlflow.tracking import MlflowClient

    def end(*_: object, **__: object) -> None:
        for name in ("set_terminated", "delete_logged_model", "finalize_logged_model"):
            patch.setattr(MlflowClient, name, end)
        raise Ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, method, end)
        try:
            yield
        except Ended:
            return
    pytest.fail(f"{method} was not called")


_QUICK = ("log_outputs", "create_model_version", "set_tag")
_LONG = ("create_run", "log_batch", "log_artifact", "create_logged_model", "create_registered_model")
_LONG = (*_LONG, "set_terminated", "set_registered_model_alias", "delete_model_version_tag", "set_model_version_tag")


@pytest.mark.parametrize("method", [*_QUICK, *(pytest.param(name, marks=pytest.mark.nightly) for name in _LONG)])
def test_wherever_a_registration_is_killed_the_next_one_ends_the_same(root: Path, method: str) -> None:
    with killed_at(method):
        register(root)
    done = register(root)
    assert (done.version, done.decision, done.champion) == ("3", "promoted", "3")
    client = open_registry(root)
    assert [str(version.version) for version in versions_of(client, "dynamicid")] == ["1", "2", "3"]
    version = find_version(client, "models:/dynamicid@challenger")
    assert str(version.version) == "3"
    assert [(one.decision, one.champion) for one in decisions_of(version)] == [("promoted", "1")]
    assert not [tag for tag in version.tags if tag in ("dynamicid.unfinished", "dynamicid.moving")]
    assert figures_problem(client, version) is None
    assert version.description.startswith("# DynamicID adapter")
    (model,) = client.search_logged_models([client.experiment_id()], f"source_run_id = '{version.run_id}'")
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "dynamicid", "version": "3"}], "on its page"
    assert search_runs(client, "RUNNING", {}) == []
    key = {"stage": "register", "adapter_hash": version.tags["dynamicid.adapter_hash"]}
    (run,) = search_runs(client, "FINISHED", key)
    assert run.info.run_id == version.run_id
    models = client.search_logged_models([client.experiment_id()])
    assert run.outputs.model_outputs[0].model_id in {model.model_id for model in models}
    half_made = [model.model_id for model in models if str(model.status) != "READY"]
    assert half_made == [], "they are deleted"
    folders = {path.name for path in Path(root / "mlartifacts" / "models").iterdir() if any(path.iterdir())}
    assert folders == {model.model_id for model in models}
    assert register(root) == done.__class__(**{**done.__dict__, "created": False, "already": True})


def test_a_version_that_somebody_deleted_is_not_registered_again(root: Path) -> None:
    assert register(root).champion == "3"
    client = open_registry(root)
    run_id = find_version(client, "models:/dynamicid/3").run_id
    client.delete_model_version("dynamicid", "3")
    with pytest.raises(StageFailed, match=rf"registered as v3, which somebody deleted.*mlflow runs delete .*{run_id}"):
        register(root)
    assert champion_number(client, "dynamicid") is None
    client.delete_run(run_id)
    assert register(root).version == "4", "as the message says"


def test_a_run_that_somebody_deleted_is_recorded_again_only_on_demand(root: Path) -> None:
    params, client = load_params(root / "params.yaml"), open_registry(root)
    run_id = record_stage(root, "evaluate", params)
    client.delete_run(run_id)
    for again in (lambda: record_stage(root, "evaluate", params), lambda: register(root)):
        with pytest.raises(Discarded, match=f"somebody deleted its MLflow run {run_id}.*`dynamicid record evaluate`"):
            again()
    assert len(versions_of(client, "dynamicid")) == 2
    other = record_stage(root, "evaluate", params, anew=True)
    assert other != run_id
    assert register(root).version == "3"


@pytest.mark.parametrize("gone", ["run", "file"])
def test_a_champion_whose_evaluation_is_gone_is_evaluated_again(
    root: Path, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run was removed for good, or only the file; the adapter is still there."""
    from pipelines.registry import champion_metrics

    client = open_registry(root)
    version = find_version(client, "models:/dynamicid/1")
    if gone == "run":
        known = version.tags["dynamicid.evaluate_run"]
        for key, text in version.tags.items():
            if known in text:  # the version's own, and that of the gates' decision
                client.set_model_version_tag("dynamicid", "1", key, text.replace(known, "0" * 32))
    else:
        artefacts = client.get_run(version.tags["dynamicid.evaluate_run"]).info.artifact_uri.removeprefix("file://")
        shutil.move(f"{artefacts}/metrics.json", root / "away.json")
    judged = []
    again = {"evaluation_set": "e" * 64, "model": {"id_similarity": {"value": 0.5, "low": 0.45, "high": 0.55}}}
    monkeypatch.setattr(champion_metrics, "_judge_again", lambda version, *_: judged.append(version.version) or again)
    try:
        assert register(root).compared_with == "1"
    finally:
        if gone == "file":
            shutil.move(root / "away.json", f"{artefacts}/metrics.json")
    assert [str(number) for number in judged] == ["1"]


def test_a_version_whose_files_are_cut_is_not_promoted(root: Path) -> None:
    from mlflow.artifacts import download_artifacts

    from pipelines.registry.promotion import promote, rollback

    params = load_params(root / "params.yaml")
    section = params.register_.model_copy(update={"promote": False})
    asked = params.model_copy(update={"register_": section})
    assert stage.run(asked, stage.Inputs(root)).decision == "not_asked"
    folder = Path(download_artifacts("models:/dynamicid/3"))
    config = folder / "artifacts" / "adapter" / "config.json"
    whole = config.read_bytes()
    config.write_bytes(whole[:5])
    with pytest.raises(StageFailed, match="its files were changed; it is not promoted"):
        promote(root, "models:/dynamicid/3", by="Ada")
    assert champion_number(open_registry(root), "dynamicid") == "1"
    config.write_bytes(whole)
    assert promote(root, "models:/dynamicid/3", by="Ada").champion == "3"
    assert rollback(root, "dynamicid", by="Ada").champion == "1"
    config.write_bytes(whole[:5])
    with pytest.raises(StageFailed, match="its files were changed; it cannot be champion again"):
        rollback(root, "dynamicid", by="Ada", to="models:/dynamicid/3")
    assert register(root).version == "4", "another version of the adapter, which is whole here"
