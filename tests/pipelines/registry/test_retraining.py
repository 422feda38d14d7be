"""Plans of training runs: dataset version, seed and initial weights by trigger and parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import Params, load_params
from pipelines.registry.retraining import LATEST, Plan, Trigger, make_plan, newest
from pipelines.versions.git_tags import claim_tag
from tests.processes import git

SHIPPED = "model/foundation/weights/adapter"
NEW = ("train_anchoring.start_from=null", "train_imr.start_from=null")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with eleven dataset versions and a registry: v1 was trained on faces-v11 and is the champion."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("retraining")
    git(folder, "init", "-q")
    git(folder, "commit", "--allow-empty", "-qm", "start")
    commit = git(folder, "rev-parse", "HEAD").strip()
    for number in range(1, 12):
        assert claim_tag(folder, "faces-v", commit, "photos") == f"faces-v{number}"
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    client.create_registered_model("dynamicid")
    tags = {"dynamicid.dataset_version": "faces-v11"}
    client.create_model_version("dynamicid", (folder / "model").as_uri(), tags=tags)
    client.set_registered_model_alias("dynamicid", "champion", "1")
    return folder


def _params(project: Path, *changes: str) -> Params:
    return load_params(project / "params.yaml", changes)


def test_only_where_there_is_no_dataset_procedural_people_are_drawn(
    root: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawings are never added to a team's photos."""
    monkeypatch.setattr("pipelines.registry.retraining.known_versions", lambda _: [])
    params = _params(project, "retrain.start_from=parameters")
    assert make_plan(root, params, "hand", []) == Plan(True, f"procedural people; from {SHIPPED}")
    assert make_plan(root, params, "schedule", []) == Plan(False, "there is no dataset version yet")


def test_versions_are_compared_by_number() -> None:
    assert newest(["faces-v9", "faces-v11", "faces-v10"]) == "faces-v11"
    assert newest([]) is None


@pytest.mark.parametrize(
    ("trigger", "versions", "changes", "plan"),
    [
        (
            "data",
            ["faces-v9", "faces-v10"],
            ("retrain.start_from=scratch",),
            Plan(True, "faces-v10 by data; from scratch", "faces-v10", None, "scratch"),
        ),
        (
            "hand",
            [],
            ("retrain.start_from=parameters",),
            Plan(True, f"faces-v11 by hand; from {SHIPPED}", "faces-v11"),
        ),
        (
            "hand",
            [LATEST],
            (*NEW, "retrain.start_from=parameters"),
            Plan(True, "faces-v11 by hand; from scratch", "faces-v11"),
        ),
        ("schedule", [], (), Plan(False, "no new data: faces-v11 was trained on for v1", "faces-v11")),
        (
            "schedule",
            [],
            ("retrain.without_new_data=new_seed", "train_anchoring.seed=5", "retrain.start_from=scratch"),
            Plan(
                True, "no newer data than faces-v11: trained again with seed 6; from scratch", "faces-v11", 6, "scratch"
            ),
        ),
        (
            "data",
            ["faces-v2"],
            ("retrain.start_from=champion",),
            Plan(True, "faces-v2 by data; from the champion v1", "faces-v2", None, "models:/dynamicid/1"),
        ),
    ],
)
def test_a_plan_follows_from_trigger_versions_and_parameters(
    *, root: Path, project: Path, trigger: Trigger, versions: list[str], changes: tuple[str, ...], plan: Plan
) -> None:
    assert make_plan(root, _params(project, *changes), trigger, versions) == plan


def test_the_form_decides_where_to_start(root: Path, project: Path) -> None:
    params = _params(project, "retrain.start_from=champion")
    assert make_plan(root, params, "data", ["faces-v2"], start_from="scratch").start_from == "scratch"


def test_without_a_champion_the_parameters_say_where_to_start(root: Path, project: Path) -> None:
    params = _params(project, "retrain.start_from=champion", "register.model_name=other")
    plan = make_plan(root, params, "data", ["faces-v2"])
    assert (plan.start_from, plan.reason) == (None, f"faces-v2 by data; from {SHIPPED}, there being no champion")


def test_an_unknown_version_is_refused(root: Path, project: Path) -> None:
    with pytest.raises(UserError, match="dataset version faces-v99: there is none"):
        make_plan(root, _params(project), "data", ["faces-v99"])


def test_nothing_to_train_on_is_a_reason_too(tmp_path: Path, project: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "--allow-empty", "-qm", "start")
    assert make_plan(tmp_path, _params(project), "schedule", []) == Plan(False, "there is no dataset version yet")
    with pytest.raises(UserError, match="there is none yet"):
        make_plan(tmp_path, _params(project), "hand", [LATEST])
