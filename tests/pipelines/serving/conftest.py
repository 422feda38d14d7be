"""A registered model on random base models, served by MLflow itself, and photos of two real people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from model.adapter import Adapter
from model.base import load_base
from model.foundation.random_models import save_random_models
from model.templates import build_bank

SIZES = {"lora_rank": 4, "reconfigurator_width": 64, "reconfigurator_heads": 4, "landmark_features": 32}


@pytest.fixture(scope="session")
def photos(shared: Path) -> list[bytes]:
    people = shared / "photos" / "lfw10_krasserm"
    return [sorted((people / name).glob("*.jpg"))[0].read_bytes() for name in ("Ariel_Sharon", "Colin_Powell")]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, project: Path, shared: Path) -> Path:
    """What a registered version's artefacts are made from: adapter and parameters."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("served")
    models = save_random_models(folder / "base")
    base = load_base(models.pipeline, models.image_encoder)
    torch.manual_seed(0)
    adapter = Adapter.create(base.unet, base.image_encoder, {**SIZES, "landmark_width": 2}, 0.3)
    adapter.add_reconfigurator(residual=True)
    torch.nn.init.normal_(adapter.reconfigurator.proj_out.weight, std=0.1)
    shapes = np.random.default_rng(0).uniform(0.2, 0.8, (2, 68, 2))
    adapter.templates = torch.from_numpy(build_bank(shapes, ["neutral", "happy"], ["front", "front"]))
    adapter.save(folder / "adapter", base.reference(str(models.pipeline), str(models.image_encoder)))
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text("utf-8"))
    tree["base"] |= {"pipeline": str(models.pipeline), "image_encoder": str(models.image_encoder)}
    tree["preprocess"] |= {
        "insightface_name": "buffalo_real_mini",
        "insightface_root": str(shared / "weights" / "insightface"),
        "landmarker": {
            "kind": "onnx",
            "path": str(shared / "weights" / "landmarks68" / "slim_160_latest.onnx"),
            "input_size": 160,
            "channel_order": "bgr",
        },
        "captions": {"sources": ["sidecar"]},
    }
    tree["evaluate"]["steps"] = 2
    (folder / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def registered(model_folder: Path) -> Iterator[str]:
    """The address of version 1 in a registry of its own, signature and all, as `dynamicid register` logs it."""
    import mlflow

    from pipelines.tracking.log_model import CODE, signature

    with pytest.MonkeyPatch.context() as patch:
        # The address and the experiment that another test chose stay set in this process.
        before, registry = mlflow.get_tracking_uri(), f"sqlite:///{model_folder / 'mlflow.db'}"
        patch.setenv("MLFLOW_TRACKING_URI", registry)
        patch.chdir(model_folder)
        mlflow.set_tracking_uri(registry)
        with mlflow.start_run(experiment_id="0"):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(CODE),
                artifacts={"adapter": str(model_folder / "adapter"), "params": str(model_folder / "params.yaml")},
                signature=signature(),
                pip_requirements=[],
                registered_model_name="dynamicid",
            )
        yield "models:/dynamicid/1"
        mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def server(registered: str) -> Iterator[str]:
    """The address of `mlflow models serve` on that version."""
    from benchmarks.serving_load import served

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with served(registered) as url:
        yield url
