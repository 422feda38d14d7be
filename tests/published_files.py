"""Published files of small random networks, all that is needed to draw with them, and their conversion."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from typer.testing import CliRunner

from model.foundation.random_models import save_random_models
from model.network.adapter import Adapter
from model.network.base import load_base
from pipelines.cli import app
from tests.random_networks import SIZES

# Fewer steps and pixels than published, as the random base is small.
SMALL = ("conventions.steps=4", "conventions.resolution=64")
PACK = "with_106"


def write_home(home: Path, project: Path, faces: Path | None = None, **preprocess: Any) -> Path:
    """Write a random base, published files for it, and a face pack with a network for 106 landmarks.

    `faces` is the pack to copy, by default that of drawn people; `preprocess` are other parameters of the section.
    """
    models = save_random_models(home / "base")
    base = load_base(models.pipeline, models.image_encoder)
    torch.manual_seed(0)
    adapter = Adapter.create(base.unet, base.image_encoder, SIZES)
    adapter.add_reconfigurator(residual=False)
    for name, parameter in adapter.named_parameters():
        if ".up." in name or "reconfigurator" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    state, files = adapter.state_dict(), home / "files"
    files.mkdir()

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): x.clone() for key, x in state.items() if key.startswith(prefix)}

    torch.save({"proj_module": part("face_encoder."), "SAA_module": part("processors.")}, files / "SAA.bin")
    torch.save(part("reconfigurator."), files / "IMR.bin")
    torch.save(part("landmark_encoder."), files / "key_point_encoder.bin")
    shipped = project / "model" / "foundation" / "weights" / "insightface" / "models" / "tiny_faces"
    pack = shutil.copytree(faces or shipped, home / "insightface" / "models" / PACK)
    save_106_landmarks(pack / "2d106det.onnx")
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text("utf-8"))
    tree["base"] |= {"pipeline": str(models.pipeline), "image_encoder": str(models.image_encoder), "resolution": 64}
    tree["preprocess"] |= {"insightface_name": PACK, "insightface_root": str(home / "insightface")} | preprocess
    tree["evaluate"] |= {"shipped_adapter": None, "people": 2, "bootstrap": 50, "variant_cells": 2}
    tree["evaluate"] |= {"steps": 1, "batch_size": 64, "diversity_seeds": 2, "several_people": {"two": 1}}
    (home / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return home


def save_106_landmarks(file: Path) -> None:
    """Write a network of the shape of insightface's 2d106det: linear in the means of patches."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    rng = np.random.default_rng(3)
    arrays = {"weight": rng.normal(scale=0.2, size=(192, 212)), "shift": rng.uniform(-1.6, 1.6, 212)}
    nodes = [
        helper.make_node("AveragePool", ["data"], ["pooled"], kernel_shape=[24, 24], strides=[24, 24]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "shift"], ["fc1"]),
    ]
    graph = helper.make_graph(
        nodes,
        "landmarks",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 192, 192])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, 212])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)


def dynamicid(*arguments: str | Path) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def converted(home: Path, out: Path, *changes: str) -> Path:
    """Convert the published files at the command line; `changes` are those of parameters."""
    files = [option for name, option in (("SAA", "--saa"), ("IMR", "--imr")) for option in (option, f"{name}.bin")]
    files += ["--landmark-encoder", "key_point_encoder.bin"]
    paths = [home / "files" / word if word.endswith(".bin") else word for word in files]
    sets = [word for change in (*SMALL, *changes) for word in ("--set", change)]
    result = dynamicid("convert", "from-published", *paths, "--out", out, "--params", home / "params.yaml", *sets)
    assert result.exit_code == 0, result.output
    return out
