"""Which networks formed an adapter, what their licences allow, and what the policy refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params, load_params
from pipelines.core.sections.evaluation import Licences
from pipelines.core.weights.licences import (
    check_licences,
    licence_faults,
    licences_by_network,
    networks_of,
    networks_of_adapter,
    recorded_networks,
)

FACES = {
    "parameter": "preprocess.insightface_name",
    "network": "buffalo_l",
    "licence": "InsightFace-non-commercial",
    "commercial": False,
    "redistribution": False,
}
BASE = {
    "parameter": "base.pipeline",
    "network": "stable-diffusion-v1-5",
    "licence": "CreativeML-OpenRAIL-M",
    "commercial": True,
    "redistribution": True,
}
OURS = {
    "parameter": "base.image_encoder",
    "path": "w/ours",
    "licence": None,
    "commercial": None,
    "redistribution": None,
}


def sd15(project: Path, *overrides: str) -> Params:
    return load_params(project / "profiles" / "sd15.yaml", overrides)


def test_the_networks_of_a_profile_and_their_licences(project: Path, tmp_path: Path) -> None:
    found = {one["parameter"]: one for one in networks_of(sd15(project), tmp_path)}
    assert found["preprocess.insightface_name"] == FACES
    assert found["base.pipeline"] == BASE
    assert set(found) == {
        *("base.pipeline", "base.image_encoder", "preprocess.insightface_name", "preprocess.landmarker.path"),
        *("preprocess.captions.clip_path", "preprocess.captions.internvl_path"),
        *("preprocess.expression.networks.0.path", "preprocess.expression.networks.1.path"),
    }, "judges form no adapter"
    tiny = networks_of(load_params(project / "profiles" / "tiny.yaml"), project)
    assert {one["licence"] for one in tiny} == {"Apache-2.0"}


def test_a_network_outside_of_the_manifest_has_no_known_licence_until_it_is_stated(
    project: Path, tmp_path: Path
) -> None:
    params = sd15(project, "base.image_encoder=w/ours")
    assert OURS in networks_of(params, tmp_path)
    entry = {"purpose": "ours", "path": "w/ours", "domain": "any", "mb": 1, "licence": "MIT"}
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump({"networks": {"ours": entry}}))
    (stated,) = (one for one in networks_of(params, tmp_path) if one["parameter"] == "base.image_encoder")
    assert (stated["network"], stated["licence"], stated["commercial"]) == ("ours", "MIT", True)


def test_a_base_of_photographs_has_the_licences_of_the_networks_that_made_it(project: Path, tmp_path: Path) -> None:
    base = tmp_path / "weights" / "photographs"
    (base / "sd").mkdir(parents=True)
    analysers = {**FACES, "parameter": "preprocess.insightface_name"}
    (base / "manifest.json").write_text(json.dumps({"origin": {"networks": [analysers]}}))
    changes = (f"base.pipeline={base / 'sd'}", f"base.image_encoder={base / 'image_encoder'}")
    tiny = load_params(project / "profiles" / "tiny.yaml", changes)
    inherited = [one for one in networks_of(tiny, tmp_path) if one.get("network") == "buffalo_l"]
    assert inherited == [{**FACES, "parameter": "base.image_encoder made with preprocess.insightface_name"}]
    (fault, *_) = (one for one in licence_faults(inherited, Licences(deny=("no-commercial-use",))))
    assert "buffalo_l (base.image_encoder made with" in fault


@pytest.mark.parametrize(
    ("policy", "refused"),
    [
        ({}, []),
        ({"deny": ["no-commercial-use"]}, ["buffalo_l", "w/ours"]),
        ({"deny": ["no-redistribution"]}, ["buffalo_l", "w/ours"]),
        ({"deny": ["insightface-*"]}, ["buffalo_l", "w/ours"]),
        ({"allow": ["CreativeML-*", "MIT"]}, ["buffalo_l", "w/ours"]),
        ({"allow": ["*"]}, ["w/ours"]),
        ({"allow": ["*"], "deny": ["creativeml-openrail-m"]}, ["stable-diffusion-v1-5", "w/ours"]),
    ],
    ids=str,
)
def test_what_a_policy_refuses(policy: dict[str, Any], refused: list[str]) -> None:
    faults = licence_faults([BASE, FACES, OURS], Licences(**policy))
    assert sorted(fault.split()[1] for fault in faults) == sorted(refused)
    assert all(fault.startswith("register.licences: ") for fault in faults)


def test_a_refusal_names_network_licence_and_what_to_do() -> None:
    faces, ours = licence_faults([FACES, OURS], Licences(deny=("no-commercial-use",)))
    assert faces == (
        "register.licences: buffalo_l (preprocess.insightface_name) has the licence InsightFace-non-commercial, denied "
        "as no-commercial-use"
    )
    assert ours == "register.licences: w/ours (base.image_encoder) has no known licence; state it in weights.yaml"
    assert licence_faults(None, Licences()) == []
    (unrecorded,) = licence_faults(None, Licences(allow=("MIT",)))
    assert unrecorded == ("register.licences: this adapter does not record which networks formed it; train it again")


def test_a_training_is_refused_before_it_begins(project: Path, tmp_path: Path) -> None:
    check_licences(sd15(project), root=tmp_path)
    sells = sd15(project, "register.licences={allow: [], deny: [no-commercial-use]}")
    with pytest.raises(StageFailed, match=r"buffalo_l .* would not be promoted; what may stand in .*: buffalo_sc"):
        check_licences(sells, root=tmp_path)
    with pytest.raises(UserError, match=r"register\.licences\.denied"):
        sd15(project, "register.licences.denied=[x]")


def test_what_an_adapter_started_from_counts_too(project: Path, tmp_path: Path) -> None:
    params = sd15(project, "train_anchoring.start_from=models:/dynamicid/3")
    start = tmp_path / "start"
    start.mkdir()
    config: dict[str, Any] = {"made_by": {"networks": [{**FACES, "network": "antelope"}], "before": None}}
    (start / "config.json").write_text(json.dumps(config))
    starts = {"train_anchoring.start_from": start, "train_imr.start_from": None}
    found = check_licences(params, starts, tmp_path)
    assert "antelope" in {one.get("network") for one in found}
    (start / "config.json").write_text("{}")
    (unknown,) = (one for one in check_licences(params, starts, tmp_path) if one["licence"] is None)
    assert unknown["path"] == "models:/dynamicid/3"


def test_a_licence_that_is_stated_later_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"made_by": {"networks": [OURS], "before": None}}))
    assert networks_of_adapter(tmp_path, tmp_path) == [OURS]
    entry = {"purpose": "ours", "path": "w/ours", "domain": "any", "mb": 1, "licence": "MIT"}
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump({"networks": {"ours": entry}}))
    stated = {"licence": "MIT", "commercial": True, "redistribution": True}
    assert networks_of_adapter(tmp_path, tmp_path) == [{**OURS, **stated}]


def test_the_networks_of_all_trainings_are_read_once(tmp_path: Path) -> None:
    first = {"stage": "train_anchoring", "networks": [BASE, FACES], "before": None}
    assert recorded_networks({"stage": "train_imr", "networks": [BASE], "before": first}) == [BASE, FACES]
    assert recorded_networks({"stage": "train_imr", "networks": [BASE], "before": {"stage": "x"}}) is None
    assert recorded_networks(None) is None
    assert networks_of_adapter(tmp_path) is None
    assert licences_by_network([BASE, FACES, OURS]) == {
        "stable-diffusion-v1-5": "CreativeML-OpenRAIL-M",
        "buffalo_l": "InsightFace-non-commercial",
        "base.image_encoder": "unknown",
    }
    assert licences_by_network(None) == {}


def test_the_adapter_that_ships_is_known_by_its_content(project: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(project / "model/foundation/weights/adapter", tmp_path / "copy")
    (network,) = networks_of_adapter(copied, tmp_path) or ()
    assert (network["network"], network["licence"]) == ("foundation-adapter", "Apache-2.0")
    (copied / "adapter.safetensors").write_bytes(b"others")
    assert networks_of_adapter(copied, tmp_path) is None
