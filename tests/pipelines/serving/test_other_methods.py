"""Adapters of other methods are drawn with, registered and served; what their method lacks is refused by name."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from PIL import Image

from model.network.adapter import Adapter
from model.network.base import empty_states, load_base
from model.network.methods import METHODS
from pipelines.core.errors import UserError
from pipelines.core.params import load_params
from pipelines.registry.log_model import CODE, input_example, signature
from pipelines.serving.generation import Generator
from pipelines.serving.request import DrawRequest, Reference

PROMPT = "a photo of a person, happy"


@pytest.fixture(scope="module", params=["ip_adapter_faceid", "ip_adapter_faceid_plus", "consistentid"])
def home(request: pytest.FixtureRequest, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base and parameters of the served model with an adapter of another method, named in `method`."""
    home = tmp_path_factory.mktemp(request.param)
    shutil.copy2(model_folder / "params.yaml", home / "params.yaml")
    sections = yaml.safe_load((home / "params.yaml").read_text("utf-8"))["base"]
    base = load_base(Path(sections["pipeline"]), Path(sections["image_encoder"]))
    sizes = {"lora_rank": 4, "parts_width": 64, "parts_depth": 1}
    adapter = Adapter.create(base.unet, base.image_encoder, sizes, method=METHODS[request.param])
    adapter.encode_null_tokens(empty_states(base.image_encoder))
    adapter.save(home / "adapter", base.reference(sections["pipeline"], sections["image_encoder"]))
    (home / "method").write_text(request.param, encoding="utf-8")
    return home


@pytest.mark.realdata
def test_it_draws_and_refuses_what_the_method_lacks(home: Path, photos: list[bytes]) -> None:
    generator = Generator.load(home / "adapter", load_params(home / "params.yaml"))
    assert not generator.has_gate
    assert not generator.takes_face_prompts
    one, two = (Reference(name, photo) for name, photo in zip("ab", photos, strict=True))
    drawn = [np.asarray(generator.draw(DrawRequest((face,), PROMPT, seed=1)).image) for face in (one, two, one)]
    assert np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1]), "the identity has an effect"
    name = (home / "method").read_text("utf-8")
    both = generator.draw(DrawRequest((one, two), PROMPT))
    assert ("2 people: facial parts of consistentid are left out" in both.note) == METHODS[name].facial_parts
    with pytest.raises(UserError, match=rf"adapter with an IMR: {name} has none: say it in the prompt"):
        generator.draw(DrawRequest((one,), PROMPT, face_prompts=("happy",)))
    with pytest.raises(UserError, match=rf"adapter with a gate: {name} has none"):
        generator.draw(DrawRequest((one,), PROMPT), gate_map=True)


@pytest.mark.realdata
def test_the_page_shows_the_identity_everywhere(home: Path, photos: list[bytes], tmp_path: Path) -> None:
    from pipelines.webpage.drawing import Renderer

    params = load_params(home / "params.yaml")
    renderer = Renderer(Generator.load(home / "adapter", params), params, "1", tmp_path)
    drawn = renderer.draw(DrawRequest((Reference("a", photos[0]),), PROMPT, seed=1))
    assert Image.open(drawn.picture).size == drawn.size
    assert not np.array_equal(np.asarray(Image.open(drawn.heat)), np.asarray(Image.open(drawn.picture)))


@pytest.mark.realdata
def test_it_is_served_as_it_was_logged(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, registry = mlflow.get_tracking_uri(), f"sqlite:///{home / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    monkeypatch.chdir(home)
    mlflow.set_tracking_uri(registry)
    try:
        with mlflow.start_run(experiment_id="0"):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(CODE),
                artifacts={"adapter": str(home / "adapter"), "params": str(home / "params.yaml")},
                signature=signature(),
                input_example=pd.DataFrame(input_example(face_prompts=False)),
                pip_requirements=[],
                registered_model_name="other",
            )
        model: Any = mlflow.pyfunc.load_model("models:/other/1")
        found = model.predict(model.input_example)
        assert Image.open(io.BytesIO(base64.b64decode(found.image[0]))).size == (64, 64)
        with pytest.raises(MlflowException, match="needs an adapter with an IMR"):
            model.predict(pd.DataFrame(input_example()))
    finally:
        mlflow.set_tracking_uri(before)
