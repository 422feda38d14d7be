"""The evaluate stage, and drawing for a request, with an adapter for a transformer base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.foundation.random_models import save_random_flux
from model.network.base import load_base
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.stages.evaluate import Inputs, Outputs, run
from tests.random_networks import random_adapter

Home = tuple[Params, Path]


@pytest.fixture
def home(random_params: Params, tmp_path: Path) -> Home:
    """Parameters of an evaluation on a random transformer base, and the folder of an adapter for it."""
    models = save_random_flux(tmp_path / "base")
    base = load_base(models.pipeline, models.image_encoder)
    adapter = tmp_path / "adapter"
    random_adapter(base).save(adapter, base.reference(str(models.pipeline), str(models.image_encoder)))
    folders = {"pipeline": str(models.pipeline), "image_encoder": str(models.image_encoder)}
    changed = {
        "base": random_params.base.model_copy(update=folders),
        "evaluate": random_params.evaluate.model_copy(
            update={"sampler": "euler", "guidance_rescale": 0.0, "layout": "regions"}
        ),
    }
    return random_params.model_copy(update=changed), adapter


@pytest.mark.realdata
def test_an_adapter_for_a_transformer_is_evaluated(
    home: Home, processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, adapter = home
    monkeypatch.setattr("pipelines.evaluation.protocol.measure", lambda *_: {})
    document = run(params, Inputs(processed, adapter, work=None), Outputs(tmp_path / "m.json", tmp_path / "i.html"))
    assert {"model", "text_only", "without_gate", "without_imr", "true_tokens"} <= document.keys()
    assert document["settings"]["sampler"] == "euler"
    assert document["model"]["clip_t"]["value"] is not None


@pytest.mark.realdata
def test_a_request_is_drawn_and_another_sampler_refused(home: Home, drawn_people: list[Path]) -> None:
    from pipelines.serving.generation import Generator
    from pipelines.serving.request import DrawRequest, Reference

    params, adapter = home
    generator = Generator.load(adapter, params)
    one, two = (Reference(file.name, file.read_bytes()) for file in drawn_people[:2])
    words = {"prompt": "a photo of a person", "seed": 1, "steps": 2}
    drawn = [np.asarray(generator.draw(DrawRequest((face,), **words)).image) for face in (one, two, one)]
    assert np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1]), "the identity has an effect"
    happy = generator.draw(DrawRequest((one, two), face_prompts=("happy", "sad"), **words), gate_map=True)
    assert happy.gate_map is not None
    with pytest.raises(UserError, match="sampler ddim: the base is one of flow matching; expected euler"):
        generator.draw(DrawRequest((one,), sampler="ddim", **words))


@pytest.mark.realdata
def test_windows_are_for_other_bases(home: Home, processed: Path, tmp_path: Path) -> None:
    params, adapter = home
    windows = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"layout": "windows"})})
    with pytest.raises(
        UserError, match=r"draws several people in regions of one picture only; set evaluate\.layout=regions"
    ):
        run(windows, Inputs(processed, adapter, work=None), Outputs(tmp_path / "m.json", tmp_path / "i.html"))
