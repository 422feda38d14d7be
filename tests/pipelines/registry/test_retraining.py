"""What a run is to do: the newest version counts, no new data skips or changes the seed, from scratch or champion."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import Params, load_params
from pipelines.registry.retraining import LATEST, Plan, make_plan, newest
from pipelines.versions.git import git
from pipelines.versions.git_tags import claim_tag


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with eleven dataset versions and a registry: v1 was trained on faces-v11 and is the champion."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("retraining")
    git(folder, "init", "-q")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--allow-empty", "-qm", "start")
    for number in range(1, 12):
        assert (
            claim_tag(folder, "faces-v", git(folder, "rev-parse", "HEAD"), "photos", push=False) == f"faces-v{number}"
        )
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    client.create_registered_model("dynamicid")
    client.create_model_version(
        "dynamicid", (folder / "model").as_uri(), tags={"dynamicid.dataset_version": "faces-v11"}
    )
    client.set_registered_model_alias("dynamicid", "champion", "1")
    return folder


def _params(project: Path, *changes: str) -> Params:
    return load_params(project / "params.yaml", changes)


def test_versions_are_compared_by_number() -> None:
    assert newest(["faces-v9", "faces-v11", "faces-v10"]) == "faces-v11"
    assert newest([]) is None


def test_of_several_events_the_newest_version_counts(root: Path, project: Path) -> None:
    plan = make_plan(root, _params(project), "data", ["faces-v9", "faces-v10"])
    assert plan == Plan(True, "faces-v10 by data; from scratch", "faces-v10")


def test_by_hand_without_a_version_people_are_drawn(root: Path, project: Path) -> None:
    assert make_plan(root, _params(project), "hand", []).dataset_version is None
    assert make_plan(root, _params(project), "hand", [LATEST]).dataset_version == "faces-v11"


def test_a_schedule_without_new_data_skips_with_a_reason(root: Path, project: Path) -> None:
    plan = make_plan(root, _params(project), "schedule", [])
    assert not plan.train
    assert plan.reason == "no new data: faces-v11 was trained on for v1"


def test_or_trains_with_a_new_seed(root: Path, project: Path) -> None:
    plan = make_plan(
        root, _params(project, "retrain.without_new_data=new_seed", "train_anchoring.seed=5"), "schedule", []
    )
    assert (plan.train, plan.dataset_version, plan.seed) == (True, "faces-v11", 6)


def test_the_champion_is_named_by_its_number(root: Path, project: Path) -> None:
    params = _params(project, "retrain.start_from=champion")
    assert make_plan(root, params, "data", ["faces-v2"]).start_from == "models:/dynamicid/1"
    assert make_plan(root, params, "data", ["faces-v2"], start_from="scratch").start_from is None


def test_an_unknown_version_is_refused(root: Path, project: Path) -> None:
    with pytest.raises(UserError, match="dataset version faces-v99: there is none"):
        make_plan(root, _params(project), "data", ["faces-v99"])


def test_nothing_to_train_on_is_a_reason_too(tmp_path: Path, project: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--allow-empty", "-qm", "start")
    assert make_plan(tmp_path, _params(project), "schedule", []) == Plan(False, "there is no dataset version yet")
    with pytest.raises(UserError, match="there is none yet"):
        make_plan(tmp_path, _params(project), "hand", [LATEST])
