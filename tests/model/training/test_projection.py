"""The projection of the embedding is pretrained alone, deterministically and once."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from model.network.base import Base
from model.network.face_encoder import FaceEncoder
from model.training import anchoring, projection
from model.training.anchoring import AnchoringData, train_anchoring
from model.training.loop import Run
from model.training.projection import latents_around_faces, pretrain_projection
from tests.model.training.test_anchoring import SETTINGS

HERE = SimpleNamespace(device=torch.device("cpu"), is_main_process=False)


@pytest.fixture(autouse=True)
def small_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "BATCH", 16)


def pretrained(data: AnchoringData, steps: int) -> tuple[FaceEncoder, float]:
    torch.manual_seed(0)
    encoder = FaceEncoder(width=64, image_width=32)
    photos = data.latents, data.faces
    return encoder, pretrain_projection(encoder, photos, photos, steps=steps, seed=0, accelerator=HERE)


def test_the_projection_learns_to_predict_latents(data: AnchoringData) -> None:
    assert pretrained(data, 1)[1] < 0.3
    assert pretrained(data, 60)[1] > 0.8


def test_it_is_the_same_every_time(data: AnchoringData) -> None:
    first, second = (pretrained(data, 3)[0].state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_nothing_but_projection_and_norm_is_trained(data: AnchoringData) -> None:
    torch.manual_seed(0)
    before = FaceEncoder(width=64, image_width=32).state_dict()
    after = pretrained(data, 2)[0].state_dict()
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"proj", "norm"}


def test_the_grid_is_aligned_with_the_face() -> None:
    latents = torch.zeros(2, 1, 16, 16)
    latents[0, :, 2:6, 2:6] = 1
    latents[1, :, 8:12, 10:14] = 1
    # The aligned face is the square of ones.
    places = torch.tensor([[[0.25, 0, -0.5], [0, 0.25, -0.5]], [[0.25, 0, 0.5], [0, 0.25, 0.25]]], dtype=torch.float32)
    first, second = latents_around_faces(latents, places)
    torch.testing.assert_close(first, second)
    assert first.max() == 1
    assert first[0] == 0


def test_a_resumed_training_does_not_pretrain_again(
    base: Base, data: AnchoringData, start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(anchoring, "pretrain_projection", lambda *_, steps, **__: calls.append(steps))
    settings = SETTINGS.model_copy(update={"projection_steps": 5, "checkpoint_every": 1})
    for _ in range(2):
        train_anchoring(base, data, data, settings, start())
        assert calls == [5]
