"""The optional part `transformer`: trained beside the shipped networks in a few steps, resumed, listed, drawn with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.foundation import manifest, transformer
from model.foundation.edition import EDITIONS
from model.foundation.measure import TRANSFORMER, Sample
from model.foundation.render import render_people
from model.foundation.text_to_image import Sampling
from model.foundation.train import TrainingResult, train_foundation
from model.inference.pipeline import pipeline_class
from model.network.base import load_base
from model.network.known_pictures import known_pictures
from pipelines.data.synthetic.foundation_people import draw
from tests.model.inference.pictures import draw as drawn
from tests.model.inference.pictures import quiet

SAMPLE = Sample(people=4, photos=5, size=64, groups=0.2, drawn=Sampling(pictures=2, steps=1, guidance=2.0))
EDITION = replace(EDITIONS[1], transformer=replace(EDITIONS[1].transformer, batch=6))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("crowd")
    render_people(work / "people", draw, people=5, photos=7, size=64, workers=1, groups=0.3)
    return work / "people"


def train(work: Path, weights: Path, people: Path) -> TrainingResult:
    """Two legs of one step and two of two."""
    if not work.is_dir():
        shutil.copytree(people, work / "people")
    asked = {"parts": ["transformer"], "steps_scale": 0.0005, "workers": 1, "sample": SAMPLE, "edition": EDITION}
    return train_foundation(work, weights, draw, **asked)


def test_it_is_of_the_class_of_flux_and_small() -> None:
    network = transformer.build(EDITIONS[1], 192)
    assert sum(value.numel() for value in network.parameters()) == 6_829_968
    assert network.config.in_channels == 16


def test_it_is_trained_beside_the_shipped_networks(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, before = tmp_path / "weights", manifest.read()
    shutil.copytree(manifest.WEIGHTS, weights)
    fit = transformer.fit

    def killed_after_a_step(module, losses, folder, **settings):  # type: ignore[no-untyped-def]
        def until(number: int, rng: np.random.Generator):  # type: ignore[no-untyped-def]
            if number == 1 and "leg 0" in settings["name"]:
                raise KeyboardInterrupt
            return losses(number, rng)

        fit(module, until, folder, **{**settings, "every": 1})

    with monkeypatch.context() as patch:
        patch.setattr(transformer, "fit", killed_after_a_step)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "work", weights, people)
    done = train(tmp_path / "work", weights, people)
    assert done.missing == ()
    known = manifest.read(weights)
    assert manifest.check(weights) == []
    assert known["recipe"]["transformer"]["steps"] == 2
    assert 0 <= known["figures"]["transformer"]["face_found"] <= 1
    for part, figures in before["figures"].items():
        assert known["figures"][part] == figures, "measured when it was trained"
    assert known["seen"]["adapter"] == before["seen"]["adapter"]

    whole = tmp_path / "whole"
    shutil.copytree(manifest.WEIGHTS, whole)
    train(tmp_path / "again", whole, people)
    assert (whole / TRANSFORMER).read_bytes() == (weights / TRANSFORMER).read_bytes()

    base = load_base(weights / "flux", weights / "image_encoder")
    assert base.resolution == 64
    assert base.text_states(["a photo of a person"]).states.shape == (1, 77, 192)
    pipe = quiet(pipeline_class(weights / "flux").from_base(base))
    assert drawn(pipe).images.shape == (1, 64, 64, 3)
    seen = known_pictures(weights / "flux")
    assert seen is not None
    assert seen.most_people == 2


def test_the_loss_falls_on_one_batch(people: Path, tmp_path: Path) -> None:
    network = transformer.build(EDITION, 192)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    clean, boxes = torch.randn(4, 4, 16, 16), np.zeros((4, 1, 4))
    text = transformer.JointText(torch.randn(4, 77, 192), torch.randn(4, 192))
    found = []
    for _ in range(12):
        torch.manual_seed(0)
        loss = transformer.flow_losses(network, clean, text, boxes)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.9 * found[0]
