"""The losses of the generative networks, and training the decoder alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.foundation import vae as vae_module
from model.foundation.clip import contrastive
from model.foundation.edition import EDITIONS
from model.foundation.loop import Legs
from model.foundation.people import People
from model.foundation.pictures import face_weight
from model.foundation.render import render_people
from pipelines.data.synthetic.foundation_people import draw


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    folder = tmp_path_factory.mktemp("foundation")
    return render_people(folder / "people", draw, people=5, photos=7, size=64, workers=1, groups=0.3)


def test_face_cells_have_a_higher_weight() -> None:
    boxes = np.array([[[0.25, 0.5, 0.75, 1.0]]])
    assert face_weight(boxes, (4, 4), 3.0)[0, 0].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 3, 3, 1], [1, 3, 3, 1]]
    # With the hair around it, in a picture twice as wide as high.
    assert face_weight(boxes, (2, 4), 3.0, grow=0.5)[0, 0].tolist() == [[3, 3, 3, 3], [3, 3, 3, 3]]
    # A person who is not there has none.
    assert face_weight(np.zeros((1, 2, 4)), (2, 4), 3.0).max() == 1


def test_equal_texts_are_positives_in_the_contrastive_loss() -> None:
    features = torch.eye(4)[[0, 0, 2, 3]]
    keys = ["a", "a", "b", "c"]
    # Two of the four rows have two positives with equal features, so their loss is log 2; that of the others is 0.
    found = contrastive(features, features, keys, torch.tensor(50.0))
    assert float(found) == pytest.approx(0.5 * np.log(2), abs=1e-3)
    assert contrastive(features, features.roll(1, 0), keys, torch.tensor(50.0)) > 5


def test_training_the_decoder_does_not_change_the_latents(people: People, tmp_path: Path) -> None:
    edition = replace(EDITIONS[1], autoencoder=replace(EDITIONS[1].autoencoder, batch=8))
    before, after = vae_module.build(edition), vae_module.build(edition)
    figures = vae_module.train(before, people, edition, Legs(tmp_path / "before", (2,)))
    assert before.config.scaling_factor == pytest.approx(1 / figures["latent_std"])
    vae_module.train(after, people, edition, Legs(tmp_path / "after", (2, 2)))
    assert after.config.scaling_factor == before.config.scaling_factor
    changed = {
        name.split(".")[0]
        for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True)
        if not torch.equal(old, new)
    }
    assert changed == {"decoder", "post_quant_conv"}
