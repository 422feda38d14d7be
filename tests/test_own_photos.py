"""Both ways of docs/guides/own-photos.md, typed in a fresh clone, from a folder of real photos to a version."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.full_size import FEW, copy_photos
from pipelines.core.params import load_params
from tests.guides import commands, section
from tests.pipelines.face_networks import save_face_network
from tests.pipelines.photos import slim_landmarker
from tests.processes import dynamicid, git, run
from tests.random_networks import save_random_clip
from tests.weights_server import weights_server

pytestmark = [pytest.mark.realdata, pytest.mark.nightly, pytest.mark.timeout(3600)]
Reader = Callable[..., str]
# The networks of `sd15` that nobody has here, and their licences.
LARGE = {
    "stable-diffusion-v1-5": "CreativeML-OpenRAIL-M",
    "clip-vit-h-14": "MIT",
    "clip-vit-l-14": "MIT",
    "internvl3-2b": "Apache-2.0",
    "buffalo_l": "InsightFace-non-commercial",
    "face-alignment": "BSD-3-Clause",
    "sface": "Apache-2.0",
    "opencv-expression": "Apache-2.0",
    "yunet": "MIT",
}
SIDE = 64


def few(*sections: str) -> list[str]:
    """Return `--set` for the small numbers of the benchmark at full size, of some sections."""
    changes = [f"{name}.{key}={json.dumps(value)}" for name in sections for key, value in FEW[name].items()]
    return [word for change in changes for word in ("--set", change)]


@pytest.fixture
def root(checkout: Path, shared: Path, tmp_path: Path) -> Path:
    """A clone with photos of ten people beside it."""
    git(tmp_path, "clone", "-q", str(checkout), str(tmp_path / "clone"))
    copy_photos(shared / "photos", tmp_path / "photos")
    for photo in (tmp_path / "photos").rglob("*.jpg"):
        photo.with_suffix(".txt").write_text("a photo of a person\n")
    return tmp_path / "clone"


@pytest.fixture
def typed(root: Path, shared: Path, tmp_path: Path) -> Iterator[Reader]:
    """Return what types a command of the guide with the reader's folders, and returns all that it prints."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dynamicid").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipelines.cli "$@"\n')
    (tmp_path / "bin" / "dynamicid").chmod(0o755)
    autoencoder = {
        f"/madebyollin/taesd/{file.name}": file.read_bytes() for file in (shared / "weights/taesd").iterdir()
    }
    with weights_server() as server:
        server.files = autoencoder
        env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HF_ENDPOINT": server.address}

        def type_in(command: str, code: int = 0) -> str:
            for placeholder, folder in (
                ("/path/to/photos", tmp_path / "photos"),
                ("--from DIR", f"--from {shared / 'weights'}"),
            ):
                command = command.replace(placeholder, str(folder))
            done = run("bash", "-c", command, cwd=root, env=env, without=("MLFLOW", "DYNAMICID"), code=code)
            return done.stdout + done.stderr

        yield type_in


def lines(project: Path, heading: str) -> list[str]:
    """Return the commands of a section of the guide after the environment is set up."""
    found = list(commands(section(project / "docs" / "guides" / "own-photos.md", heading)))
    assert found[0].startswith("make env")
    return found[1:]


def registered(printed: str, root: Path) -> None:
    """Check that the first version is refused, with the reason of every gate whose judge cannot judge."""
    refused = printed[printed.index("dynamicid v1 is not promoted: ") :]
    metrics = json.loads((root / "reports" / "metrics.json").read_bytes())["model"]
    gates = load_params(root / "params.yaml").register_.gates
    for name in (gate.metric for gate in gates if gate.variant == "model" and gate.metric != "s"):
        if metrics[name]["value"] is None:
            assert f"{name} is not measurable ({metrics[name]['reason']})" in refused


def test_on_a_laptop(project: Path, root: Path, typed: Reader) -> None:
    for line in lines(project, "On a laptop"):
        if "foundation train" in line:
            typed(f"{line} --steps-scale 0.0005")
            continue
        printed = typed(line, code=int("register" in line))
        if "configure" in line:
            for fewer in commands(section(project / "docs" / "guides" / "own-photos.md", "Fewer photos")):
                typed(fewer)
            small = few("train_anchoring", "train_imr", "evaluate")
            dynamicid("configure", *small, "--set", "train_anchoring.projection_steps=2", cwd=root)
        if "register" in line:
            registered(printed, root)
        if line == "dynamicid summary":
            assert "expression_accuracy" in printed


def test_on_a_gpu_machine(project: Path, root: Path, shared: Path, typed: Reader) -> None:
    for name in LARGE:
        stand_in(name, root, shared)
    own = {name: {**described(project, name), "licence": licence, "files": {}} for name, licence in LARGE.items()}
    own["fsanet"] = {**entry(project, "fsanet"), "source": None}  # its server is not asked by a test
    (root / "weights.yaml").write_text(yaml.safe_dump({"format": 1, "networks": own}))
    for line in lines(project, "On a GPU machine"):
        if "weights fetch" in line:
            # The networks without an address come from a folder.
            assert "fer: not fetched: fer: no address" in typed(line, code=1)
            typed(f"{line} --from DIR")
            continue
        if "calibrate" in line:
            assert "about 250 photos" in typed(line, code=2), "ten are too few; this recogniser is calibrated already"
            continue
        printed = typed(line, code=int("register" in line))
        if "configure" in line:
            numbers = few("validate", "preprocess", "validate_processed", "train_anchoring", "train_imr", "evaluate")
            small = [f"{key}={SIDE}" for key in ("base.resolution", "preprocess.resolution")]
            # FAN with random weights would leave no face that is not turned away.
            small += [
                f"preprocess.landmarker={json.dumps(slim_landmarker(shared))}",
                "train_anchoring.sizes.lora_rank=4",
            ]
            dynamicid("configure", *numbers, *(word for one in small for word in ("--set", one)), cwd=root)
        if "register" in line:
            registered(printed, root)
            assert "InsightFace-non-commercial" in (root / "models/adapter/config.json").read_text()


def described(project: Path, name: str) -> dict[str, object]:
    """Return what the manifest says of a network, without its source."""
    return {key: entry(project, name)[key] for key in ("purpose", "path", "domain", "mb")}


def entry(project: Path, name: str) -> dict[str, object]:
    """Return the whole entry of a network."""
    manifest = yaml.safe_load((project / "pipelines/core/weights/manifest.yaml").read_text(encoding="utf-8"))
    return dict(manifest["networks"][name])


def stand_in(name: str, root: Path, shared: Path) -> None:
    """Put a small network of the same class in the place of a large one."""
    from model.foundation.random_models import save_random_models

    path = root / str(described(root, name)["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    small = shared / "weights"
    if name == "stable-diffusion-v1-5":
        made = save_random_models(root / "weights" / "random")
        shutil.move(made.pipeline, path)
        shutil.move(made.image_encoder, path.parent / "CLIP-ViT-H-14-laion2B-s32B-b79K")
    elif name in ("clip-vit-l-14", "internvl3-2b"):
        # Every photo came with a prompt: InternVL is not opened.
        save_random_clip(path)
    elif name == "buffalo_l":
        shutil.copytree(small / "insightface/models/buffalo_real_mini", path)
    elif name != "clip-vit-h-14":
        path.mkdir()
    if name == "sface":
        shutil.copy(small / "judge/mobilefacenet128.onnx", path / "face_recognition_sface_2021dec.onnx")
    elif name == "yunet":
        shutil.copy(small / "detection/yunet_n_640_640.onnx", path / "face_detection_yunet_2023mar.onnx")
    elif name == "opencv-expression":
        import numpy as np

        weights = np.random.default_rng(0).normal(size=(3, 7))
        save_face_network(path / "facial_expression_recognition_mobilefacenet_2022july.onnx", weights, size=112)
