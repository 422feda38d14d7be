"""The manifest names every network of every profile; a checkout's own networks join it; networks are recognised."""

from __future__ import annotations

import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.core.errors import UserError
from pipelines.core.params import check_params, overridden_tree, read_tree
from pipelines.core.weights.check import needed_by, network_faults, state_of
from pipelines.core.weights.fetch import fetch
from pipelines.core.weights.identify import identified, identify
from pipelines.core.weights.lock import Lock, read_lock
from pipelines.core.weights.manifest import OWN, named_paths, read_manifest
from tests.guides import commands, section

PROFILES = ("tiny", "tiny_dit", "showcase", "flux", "sd15", "sdxl", "photographs")


def own(root: Path, **tree: Any) -> Path:
    (root / OWN).write_text(yaml.safe_dump(tree))
    return root


def network(**changes: Any) -> dict[str, Any]:
    return {"purpose": "a test", "path": "weights/mine", "domain": "photograph", "mb": 1, **changes}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_network_of_a_profile_is_in_the_manifest(project: Path, profile: str) -> None:
    tree = read_tree(project / "profiles" / f"{profile}.yaml")
    needed = needed_by(tree, read_manifest(project), project)
    assert needed.unknown == {}
    assert {
        "base.pipeline",
        "base.image_encoder",
        "preprocess.insightface_name",
        "evaluate.judges.recogniser.path",
    } <= {key for keys in needed.keys.values() for key in keys}


def test_shipped_networks_know_drawings_and_are_as_expected(project: Path) -> None:
    manifest = read_manifest(project)
    shipped = {name: entry for name, entry in manifest.networks.items() if entry.shipped}
    assert {entry.domain for entry in shipped.values()} == {"drawn"}
    for name, entry in shipped.items():
        assert network_faults(project, name, entry, Lock()) == []
    found = identified(read_tree(project / "profiles" / "tiny.yaml"), project)
    assert all(one.name in shipped for one in found.values()), found
    assert set(identified(read_tree(project / "profiles" / "sd15.yaml"), project)) >= {"preprocess.captions.clip_path"}


def test_every_licence_says_what_it_allows_and_where_to_read_it(project: Path) -> None:
    manifest = read_manifest(project)
    assert all(licence.page and licence.note for licence in manifest.licences.values() if licence.accept)
    assert not manifest.licences["InsightFace-non-commercial"].commercial
    without = {name for name, entry in manifest.networks.items() if entry.licence is None}
    assert without == {"dynamicid", "own-base", "own-image-encoder", "own-clip"}


def test_every_network_says_where_it_comes_from_or_what_may_stand_in_for_it(project: Path) -> None:
    networks = read_manifest(project).networks
    for name, entry in networks.items():
        if entry.shipped or entry.made_by:
            continue
        assert entry.source or entry.page or entry.note, name
        if entry.source is None:
            assert any(networks[other].source for other in entry.instead), name
        if entry.hashes == "measured":
            assert all(file.sha256 and len(file.sha256) == 64 for file in entry.files.values()), name
        if entry.made_from:
            assert all(file.sha256 for file in entry.made_from.files.values()), name
    # The analysers of photographs: an address, or the published release that they were converted from.
    for name in ("fer", "faceapi-expression", "fsanet", "peppa-landmarks"):
        assert networks[name].source or networks[name].made_from, name


@pytest.mark.parametrize("profile", ["photographs", "sd15"])
def test_what_the_guide_takes_instead_can_be_fetched(project: Path, profile: str) -> None:
    (command,) = commands(section(project / "docs" / "guides" / "own-photos.md", "Only what can be fetched"))
    words = shlex.split(command)
    changes = [value for option, value in pairwise(words) if option == "--set"]
    tree = overridden_tree(project / "profiles" / f"{profile}.yaml", changes)
    check_params(tree, profile)
    manifest = read_manifest(project)
    needed = needed_by(tree, manifest, project)
    assert needed.unknown == {}
    entries = {name: manifest.networks[name] for name in needed.keys}
    assert [name for name, one in entries.items() if not (one.source or one.made_by or one.shipped)] == []


def test_captions_that_are_not_asked_need_no_network() -> None:
    captions = {"sources": ["sidecar", "clip"], "clip_path": "weights/c", "internvl_path": "weights/i"}
    tree = {"preprocess": {"captions": captions, "master": "spark://host/x"}, "evaluate": {"shipped_adapter": "a/b"}}
    assert named_paths(tree) == {"preprocess.captions.clip_path": "weights/c"}


def test_own_networks_and_licences_join(tmp_path: Path) -> None:
    licences = {"Ours": {"commercial": True, "redistribution": False}}
    own(tmp_path, licences=licences, networks={"mine": network(licence="Ours")})
    manifest = read_manifest(tmp_path)
    assert manifest.networks["mine"].licence == "Ours"
    assert "buffalo_l" in manifest.networks
    assert manifest.at("weights/mine/part/net.onnx", tmp_path) == "mine"
    assert manifest.at(tmp_path / "weights" / "mine", tmp_path) == "mine"
    assert manifest.at("weights/other", tmp_path) is None


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"networks": {"mine": network(licence="Nobody")}},
            r"has the licence 'Nobody', which is not defined; define it",
        ),
        ({"networks": {"mine": network(domain="cartoon")}}, r"networks\.mine\.domain = 'cartoon'"),
        ({"networks": {"mine": network(path="../up")}}, r"\.\./up: expected a path inside the checkout"),
        ({"networks": {"mine": network(instead=["none"])}}, r"instead names 'none', which is no network"),
        (
            {"networks": {"mine": network(source={"hub": "a/b", "files": "http://x"})}},
            r"expected one of hub, files and",
        ),
        ({"networks": {"mine": network(files={"a": {"sha256": "XYZ"}})}}, r"sha256 = 'XYZ'"),
        ({"networks": {"mine": network(sha256="0")}}, r"unknown key networks\.mine\.sha256"),
        ({"networks": [1]}, r"networks: expected a mapping of names"),
        ({"format": 2, "networks": {}}, r"a list of networks in format 2"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:20],
)
def test_what_is_wrong_in_own_networks_is_named(tmp_path: Path, tree: dict[str, Any], message: str) -> None:
    own(tmp_path, **tree)
    with pytest.raises(UserError, match=message) as refused:
        read_manifest(tmp_path)
    assert str(refused.value).startswith(str(tmp_path / OWN))


def test_a_network_is_recognised_by_its_content_wherever_it_lies(project: Path, tmp_path: Path) -> None:
    manifest, lock = read_manifest(project), Lock()
    moved = tmp_path / "judge.onnx"
    shutil.copyfile(project / "model/foundation/weights/judges/recogniser.onnx", moved)
    assert identify(moved, manifest, lock, tmp_path) == "foundation-recogniser-judge"
    # Another network at the path of one whose hashes are known is not that one.
    wrong = tmp_path / "weights" / "judges" / "sface" / "face_recognition_sface_2021dec.onnx"
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"another network")
    assert identify(wrong, manifest, lock, tmp_path) is None
    assert identify(tmp_path / "weights" / "taesd", manifest, lock, tmp_path) == "taesd"


@pytest.mark.realdata
def test_small_real_networks_from_a_folder(shared: Path, tmp_path: Path) -> None:
    names = ["taesd", "peppa-landmarks", "mobilefacenet128", "fer", "faceapi-expression", "fsanet", "yunet-640"]
    accepted = ["InsightFace-non-commercial"]
    done = fetch(tmp_path, [*names, "buffalo_real_mini"], folder=shared / "weights", accepted=accepted)
    assert [network.name for network in done if network.unpublished] == ["taesd"]
    manifest, lock = read_manifest(tmp_path), read_lock(tmp_path)
    for name in (*names, "buffalo_real_mini"):
        entry = manifest.networks[name]
        assert network_faults(tmp_path, name, entry, lock) == []
        assert state_of(tmp_path, name, entry, lock) == "fetched"
    pack = shared / "weights" / "insightface" / "models" / "buffalo_real_mini"
    assert identify(pack, manifest, lock, tmp_path) == "buffalo_real_mini"
    assert identify(shared / "weights" / "taesd", manifest, lock, tmp_path) == "taesd"
