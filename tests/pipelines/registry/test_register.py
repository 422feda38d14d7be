"""At registration the gates decide once and record the evidence; worse challengers are refused with a reason."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.core.chain import stage_names
from pipelines.core.params import load_params
from pipelines.registry.decisions import decisions_of
from pipelines.registry.log_model import Challenger
from pipelines.registry.origins import origins_of
from pipelines.registry.promotion import compare, promote, rollback
from pipelines.registry.registry import find_version, made_from, open_registry
from pipelines.stages import register
from pipelines.versions.dvc import stage_environment
from tests.processes import dynamicid, run


def test_the_first_passes_the_bounds_and_a_worse_one_is_refused_with_every_reason(registered: Any) -> None:
    assert registered.first["decision"] == "promoted"
    assert registered.first["champion"] == "1"
    assert registered.second["decision"] == "refused"
    assert registered.second["failed_gates"] == ("id_similarity 0.400 < 0.480 (champion v1: 0.500)",)
    assert (registered.second["champion"], registered.second["compared_with"]) == ("1", "1")


def test_the_evidence_is_kept_with_the_version(registered: Any) -> None:
    client = open_registry(registered.root)
    (refused,) = decisions_of(find_version(client, "models:/dynamicid/2"))
    assert (refused.decision, refused.by, refused.champion) == ("refused", "gates", "1")
    absolute, regression = refused.evidence["gates"]
    assert (absolute["bound"], absolute["passed"]) == (0.3, True)
    assert (regression["kind"], regression["bound"], regression["passed"]) == ("regression", 0.48, False)
    run = client.get_run(refused.evidence["evaluate_run"])
    assert run.data.tags["dynamicid.stage"] == "evaluate"
    assert str(find_version(client, "models:/dynamicid@challenger").version) == "2"


def test_a_champion_that_cannot_be_judged_any_more_refuses_and_says_so(registered: Any) -> None:
    root: Path = registered.root
    client = open_registry(root)
    metrics = json.loads((root / "reports" / "metrics.json").read_text())
    other = {**metrics, "evaluation_set": "f" * 64}
    challenger = find_version(client, "models:/dynamicid/2")
    again = Challenger(root, root / "models/adapter", other, root / "reports/index.html", root / "data/processed")
    decision = compare(client, challenger, load_params(root / "params.yaml"), again)
    assert (decision.decision, decision.champion) == ("refused", "1")
    (line,) = decision.reasons
    assert line.startswith("champion v1 cannot be evaluated on this evaluation set: ")


def test_every_stage_has_a_run_after_a_plain_dvc_repro(registered: Any) -> None:
    """Neither `dynamicid repro` nor `record` was called: registering records them."""
    for number in (1, 2):
        stages = origins_of(registered.root, f"models:/dynamicid/{number}").stages
        assert len(stages) == len(stage_names())
        assert [name for name, one in stages.items() if one.run_id is None] == []


def test_registering_again_finds_the_version_and_its_decision(registered: Any) -> None:
    root: Path = registered.root
    again = asdict(register.run(load_params(root / "params.yaml"), register.Inputs(root)))
    assert again == {**registered.second, "created": False, "already": True}, "and no gate was judged"
    assert len(decisions_of(find_version(open_registry(root), "models:/dynamicid/2"))) == 1


def test_a_version_whose_networks_forbid_commerce_is_refused(registered: Any, tmp_path: Path) -> None:
    root: Path = registered.root
    client = open_registry(root)
    metrics = json.loads((root / "reports" / "metrics.json").read_text())
    faces = {"parameter": "preprocess.insightface_name", "network": "buffalo_l", "commercial": False}
    faces |= {"licence": "InsightFace-non-commercial", "redistribution": False}
    record = {"made_by": {"stage": "train_imr", "networks": [faces], "before": None}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    challenger = Challenger(root, tmp_path, metrics, root / "reports/index.html", root / "data/processed")
    version = find_version(client, "models:/dynamicid/1")
    params = load_params(root / "params.yaml")
    assert compare(client, version, params, challenger).decision == "promoted"
    sells = load_params(root / "params.yaml", ["register.licences={allow: [], deny: [no-commercial-use]}"])
    decision = compare(client, version, sells, challenger)
    assert decision.decision == "refused"
    (line,) = decision.evidence["failed_gates"]
    assert line.startswith(
        "register.licences: buffalo_l (preprocess.insightface_name) has the licence InsightFace-non-"
    )


def test_the_licences_stand_in_the_tags_and_in_the_card(registered: Any) -> None:
    version = find_version(open_registry(registered.root), "models:/dynamicid/1")
    assert version.tags["dynamicid.licences"] == "MIT"
    assert made_from(version.tags).networks == {"small": "MIT"}
    card = version.description.replace("&emsp;", "")
    assert "\n| small | base.pipeline | MIT | allowed | allowed |\n" in card
    assert "\n| id_similarity | 0.500 | 0.450 … 0.550 | – | – |\n" in card


@pytest.fixture
def checkout(registered: Any, tmp_path: Path) -> Path:
    """A copy of the checkout, with its database and two versions."""
    return Path(shutil.copytree(registered.root, tmp_path / "copy", symlinks=True))


def evaluate_again(root: Path, figure: float) -> None:
    """Run the stage `evaluate` with other parameters; the adapter stays, its `id_similarity` becomes `figure`."""
    file = root / "params.yaml"
    tree = yaml.safe_load(file.read_text())
    tree["evaluate"]["seeds"] += 1
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    variables = {"PATH": stage_environment()["PATH"], "FIGURE": str(figure)}
    run(sys.executable, "-m", "dvc", "repro", "-q", "evaluate", cwd=root, env=variables)


def registered_again(root: Path) -> dict[str, Any]:
    return asdict(register.run(load_params(root / "params.yaml"), register.Inputs(root)))


def test_a_new_evaluation_of_a_registered_adapter_is_recorded_and_decided_on(registered: Any, checkout: Path) -> None:
    evaluate_again(checkout, 0.6)
    message = dynamicid("register", cwd=checkout, without=("MLFLOW_TRACKING_URI", "DYNAMICID_HOME")).stderr
    done = registered_again(checkout)
    client = open_registry(checkout)
    old = registered.second["evaluate_run"]
    assert (done["version"], done["created"], done["decision"], done["champion"]) == ("2", False, "promoted", "2")
    assert client.get_run(done["evaluate_run"]).data.metrics["id_similarity"] == 0.6
    assert client.get_run(old).data.metrics["id_similarity"] == 0.4
    assert f"figures of run {done['evaluate_run']}, judged before were those of run {old}; every gate passed" in message
    assert done["evaluated_before"] is None, "it is new once"
    refused, promoted = decisions_of(find_version(client, "models:/dynamicid/2"))
    assert (refused.decision, promoted.decision, promoted.champion) == ("refused", "promoted", "1")
    assert promoted.evidence["gates"][0]["value"] == 0.6
    assert len(client.search_model_versions("name = 'dynamicid'")) == 2


@pytest.mark.nightly
def test_a_champion_that_fails_its_gates_on_new_figures_is_named_and_stays(checkout: Path) -> None:
    evaluate_again(checkout, 0.6)
    assert registered_again(checkout)["champion"] == "2"
    evaluate_again(checkout, 0.1)
    message = dynamicid("register", cwd=checkout, without=("MLFLOW_TRACKING_URI", "DYNAMICID_HOME"), code=1).stderr
    assert "dynamicid v2 is the champion and fails its gates: id_similarity 0.100 < 0.300" in message
    assert registered_again(checkout)["champion"] == "2"
    assert rollback(checkout, "dynamicid", by="Ada").champion == "1"
    evaluate_again(checkout, 0.9)
    done = registered_again(checkout)
    assert (done["decision"], done["champion"], done["failed_gates"]) == ("not_asked", "1", ())
    assert promote(checkout, "models:/dynamicid/2", by="Ada").champion == "2"
