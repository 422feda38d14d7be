"""New photos become a dataset version, which starts a training that ends with a decision and its reasons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(7200)]
SECONDS = 2400


def _retrained(team, earlier: set[str], version: str) -> dict:
    """Wait for the training that the new version starts, and return what was registered."""
    run = team.new_run("dynamicid_train", "asset_triggered", earlier)
    state = team.airflow.wait("dynamicid_train", run, SECONDS)
    assert state == "success", team.airflow.states("dynamicid_train", run)
    assert team.airflow.states("dynamicid_train", run)["decide"] == "skipped"
    registered = team.airflow.result("dynamicid_train", run, "register")
    tags = team.client().get_model_version(registered["model_name"], registered["version"]).tags
    assert tags["dynamicid.dataset_version"] == version
    decisions = [json.loads(text) for key, text in sorted(tags.items()) if key.startswith("dynamicid.decision.")]
    return {**registered, "run": run, "decisions": decisions}


@pytest.fixture(scope="module")
def promoted(team) -> dict:
    earlier = {run["dag_run_id"] for run in team.airflow.runs("dynamicid_train")}
    run, version = team.ingested("first", identities=8)
    return {**_retrained(team, earlier, version), "ingest_run": run, "dataset": version}


def test_new_photos_end_with_a_promoted_challenger(team, promoted: dict) -> None:
    assert promoted["decision"] == "promoted"
    assert promoted["champion"] == promoted["version"]
    assert promoted["decisions"][-1]["decision"] == "promoted"
    assert promoted["decisions"][-1]["by"] == "gates"
    champion = team.client().get_model_version_by_alias(promoted["model_name"], "champion")
    assert champion.version == promoted["version"]


def test_the_batch_is_moved_and_bad_photos_are_listed(team, promoted: dict) -> None:
    from pipelines.versions.workspace import run_name

    name = run_name(f"dynamicid_ingest/{promoted['ingest_run']}")
    done = list((team.inbox / "_done" / name).rglob("*.jpg"))
    assert len(done) == 8 * 35
    listed = json.loads((team.inbox / "_bad" / f"{name}.json").read_text())
    assert [Path(file).name for file in listed] == ["broken.jpg"]
    assert (team.inbox / "_bad" / name / next(iter(listed))).is_file()
    assert not (team.inbox / "_taken" / name).exists()


def test_a_worse_challenger_is_refused_with_a_reason(team, promoted: dict) -> None:
    earlier = {run["dag_run_id"] for run in team.airflow.runs("dynamicid_train")}
    # A far too high learning rate, without warm-up and averages of the weights, destroys the pictures.
    worse = ("learning_rate=0.3", "warmup_steps=0", "ema_decay=0")
    team.commit_params(*(f"train_anchoring.{value}" for value in worse))
    try:
        _, version = team.ingested("second", identities=2)
        refused = _retrained(team, earlier, version)
    finally:
        usual = ("learning_rate=0.0003", "warmup_steps=20", "ema_decay=0.99")
        team.commit_params(*(f"train_anchoring.{value}" for value in usual))
    print(f"refused: {refused['failed_gates']}")
    assert refused["decision"] == "refused"
    assert any(
        line.startswith("face_rate ") and f"champion v{promoted['version']}" in line for line in refused["failed_gates"]
    )
    assert refused["decisions"][-1]["decision"] == "refused"
    assert refused["decisions"][-1]["reasons"]
    champion = team.client().get_model_version_by_alias(promoted["model_name"], "champion")
    assert champion.version == promoted["version"] != refused["version"]
