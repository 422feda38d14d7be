"""A stage depends on the networks in lists of its parameters, as on those that `dvc.yaml` names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pipelines.core.chain import FINGERPRINTS
from pipelines.core.params import read_tree
from pipelines.core.weights.manifest import named_paths
from pipelines.versions.networks import record_networks
from tests.processes import dvc, git

PARAMS = {
    "format": 5,
    "preprocess": {
        "insightface_root": "weights/packs",
        "insightface_name": "pack",
        "landmarker": {"path": "weights/landmarks.onnx"},
        "expression": {"networks": [{"path": "weights/a/one.onnx"}, {"path": "weights/b/two.onnx"}]},
        "pose": {"networks": [{"path": "weights/listed/pose.onnx"}]},
        "captions": {"sources": ["sidecar"], "clip_path": "weights/not-asked"},
    },
}
DEPS = ["weights/listed", "${preprocess.landmarker.path}", "fingerprints/preprocess.json"]
DEPS += ["${preprocess.insightface_root}/models/${preprocess.insightface_name}"]
STAGE = {"cmd": "python step.py", "deps": [*DEPS, "step.py"], "params": ["preprocess"], "outs": ["count"]}
STEP = """
from pathlib import Path
runs = Path("runs")
runs.write_text(str(int(runs.read_text()) + 1 if runs.exists() else 1))
Path("count").write_text(runs.read_text())
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a stage `preprocess` that counts its runs, and its networks."""
    git(tmp_path, "init", "-q")
    dvc(tmp_path, "init", "-q")
    for name in ("a/one.onnx", "b/two.onnx", "listed/pose.onnx", "landmarks.onnx", "packs/models/pack/net.onnx"):
        (tmp_path / "weights" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "weights" / name).write_text(name)
    (tmp_path / "step.py").write_text(STEP)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"preprocess": STAGE}}))
    return tmp_path


def test_only_what_dvc_yaml_cannot_name_is_recorded(root: Path) -> None:
    record_networks(root, "preprocess")
    file = root / "fingerprints" / "preprocess.json"
    first = file.read_bytes()
    assert sorted(json.loads(first)) == ["weights/a/one.onnx", "weights/b/two.onnx"]
    before = file.stat().st_mtime_ns
    record_networks(root, "preprocess")
    assert file.stat().st_mtime_ns == before
    (root / "weights/b/two.onnx").unlink()
    record_networks(root, "preprocess")
    assert json.loads(file.read_bytes()) == json.loads(first) | {"weights/b/two.onnx": None}
    record_networks(root, "evaluate")
    assert not (root / "fingerprints" / "evaluate.json").exists(), "no stage depends on it"


def test_another_file_of_a_network_in_a_list_runs_the_stage_again(root: Path) -> None:
    def repro() -> int:
        record_networks(root, "preprocess")
        dvc(root, "repro", "-q", "preprocess")
        return int((root / "count").read_text())

    assert [repro(), repro()] == [1, 1]
    (root / "weights" / "b" / "two.onnx").write_text("another network")
    assert repro() == 2
    (root / "weights" / "landmarks.onnx").write_text("another network")
    assert [repro(), repro()] == [3, 3]


@pytest.mark.parametrize("profile", ["tiny", "tiny_dit", "showcase", "photographs", "sd15", "sdxl", "flux"])
def test_every_network_of_a_profile_is_a_dependency(project: Path, profile: str) -> None:
    tree = read_tree(project / "profiles" / f"{profile}.yaml")
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        if named_paths(tree, (name,)):
            assert f"{FINGERPRINTS}{name}.json" in stage["deps"]
            assert (project / FINGERPRINTS / f"{name}.json").read_text() == "{}\n", "those of tiny are all listed"
