"""An adapter for a transformer base is logged, registered and served as any other."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml
from PIL import Image

from model.foundation.random_models import save_random_flux
from model.network.base import load_base
from pipelines.registry.log_model import CODE, input_example, signature
from tests.random_networks import random_adapter


@pytest.mark.realdata
def test_it_is_served_as_it_was_logged(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = save_random_flux(tmp_path / "base")
    folders = {"pipeline": str(models.pipeline), "image_encoder": str(models.image_encoder)}
    base = load_base(models.pipeline, models.image_encoder)
    random_adapter(base).save(tmp_path / "adapter", base.reference(**folders))
    tree = yaml.safe_load((model_folder / "params.yaml").read_text("utf-8"))
    tree["base"] |= folders
    tree["evaluate"] |= {"sampler": "euler", "guidance_rescale": 0.0}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    before, registry = mlflow.get_tracking_uri(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(registry)
    try:
        with mlflow.start_run(experiment_id="0"):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(CODE),
                artifacts={"adapter": str(tmp_path / "adapter"), "params": str(tmp_path / "params.yaml")},
                signature=signature(),
                input_example=pd.DataFrame(input_example()),
                pip_requirements=[],
                registered_model_name="transformer",
            )
        shutil.rmtree(tmp_path / "adapter")
        model: Any = mlflow.pyfunc.load_model("models:/transformer/1")
        found = model.predict(model.input_example)
        assert Image.open(io.BytesIO(base64.b64decode(found.image[0]))).size == (64, 64)
    finally:
        mlflow.set_tracking_uri(before)
