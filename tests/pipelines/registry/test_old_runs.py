"""Runs that were deleted, and old ones, go for good; those of a registered version and its chain never."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipelines.core.sections.operations import Keeping
from pipelines.registry.old_runs import find_old_runs
from pipelines.registry.runs import PARENT
from pipelines.registry.settings import own_uri
from pipelines.registry.tracking import open_tracking

DAY = 86400.0


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return open_tracking(tmp_path).plain


def ended(client: MlflowClient, name: str, **tags: str) -> str:
    experiment = client.get_experiment_by_name("dynamicid").experiment_id
    run = client.create_run(experiment, run_name=name, tags={key.replace("__", "."): tags[key] for key in tags})
    client.log_text(run.info.run_id, "x" * 1000, "file.txt")
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def names(client: MlflowClient) -> set[str]:
    experiment = client.get_experiment_by_name("dynamicid").experiment_id
    return {run.info.run_name for run in client.search_runs([experiment], run_view_type=3)}


def test_what_was_deleted_goes_with_its_files_and_versions_keep_their_chain(
    client: MlflowClient, tmp_path: Path
) -> None:
    made = json.dumps({"stages": {"train_imr": "a" * 64}, "outputs": {}, "networks": {}})
    chain = ended(client, "chain")
    client.set_tag(ended(client, "stage of the chain"), PARENT, chain)
    ended(client, "stage of another chain", dynamicid__lock_hash="a" * 64)
    evaluated = ended(client, "evaluation")
    registered = ended(client, "register", dynamicid__made_from=made, dynamicid__evaluate_run=evaluated)
    client.set_tag(registered, PARENT, chain)
    client.create_registered_model("dynamicid")
    client.create_model_version("dynamicid", str(tmp_path), run_id=registered)
    deleted, old = ended(client, "deleted"), ended(client, "old")
    for run in (deleted, evaluated):
        client.delete_run(run)
    folder = Path(client.get_run(deleted).info.artifact_uri.removeprefix("file://"))
    address, soon = own_uri(tmp_path), time.time() + 2 * DAY
    assert find_old_runs(tmp_path, address, Keeping(deleted_runs_days=3), soon).deleted == []
    found = find_old_runs(tmp_path, address, Keeping(deleted_runs_days=1, runs_days=1), soon)
    assert (found.old, found.deleted) == ([old], [deleted])
    found = find_old_runs(tmp_path, address, Keeping(deleted_runs_days=0), time.time() + 1)
    assert (found.old, found.deleted) == ([], [deleted]), "without runs_days, old runs stay"
    assert folder.is_dir()
    assert found.remove() >= 1000
    assert not folder.exists()
    assert names(client) == {"chain", "stage of the chain", "stage of another chain", "evaluation", "register", "old"}
