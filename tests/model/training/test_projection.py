"""The projection of the embedding learns what faces look like before the UNet takes part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from model.network.base import Base
from model.network.face_encoder import FaceEncoder
from model.training import anchoring, projection
from model.training.anchoring import AnchoringData, anchoring_data, train_anchoring
from model.training.encode import RecordEncoder
from model.training.loop import Run
from model.training.photos import Photos
from model.training.projection import latents_around_faces, pretrain_projection
from tests.model.training.test_anchoring import SETTINGS

HERE = SimpleNamespace(device=torch.device("cpu"), is_main_process=False)


@pytest.fixture
def data(base: Base, tmp_path: Path, make_photos: Callable[..., Photos]) -> AnchoringData:
    return anchoring_data(base, make_photos(1, 2, 3, 4), RecordEncoder(tmp_path / "cache", 4, None), 64)


def taught(data: AnchoringData, steps: int) -> tuple[FaceEncoder, float]:
    torch.manual_seed(0)
    encoder = FaceEncoder(width=64, image_width=32)
    photos = data.latents, data.faces
    return encoder, pretrain_projection(encoder, photos, photos, steps=steps, seed=0, accelerator=HERE)


def test_the_projection_comes_to_tell_faces_apart(data: AnchoringData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "BATCH", 16)
    assert taught(data, 1)[1] < 0.3
    assert taught(data, 60)[1] > 0.8


def test_it_is_the_same_every_time(data: AnchoringData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "BATCH", 16)
    first, second = (taught(data, 3)[0].state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_nothing_but_projection_and_norm_is_trained(data: AnchoringData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "BATCH", 16)
    torch.manual_seed(0)
    before = FaceEncoder(width=64, image_width=32).state_dict()
    after = taught(data, 2)[0].state_dict()
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"proj", "norm"}


def test_the_grid_lies_on_every_face_alike() -> None:
    latents = torch.zeros(2, 1, 16, 16)
    latents[0, :, 2:6, 2:6] = 1
    latents[1, :, 8:12, 10:14] = 1
    # The recogniser's picture is the square of ones: half a side of it, moved there.
    places = torch.tensor([[[0.25, 0, -0.5], [0, 0.25, -0.5]], [[0.25, 0, 0.5], [0, 0.25, 0.25]]], dtype=torch.float32)
    first, second = latents_around_faces(latents, places)
    torch.testing.assert_close(first, second)
    assert first.max() == 1
    assert first[0] == 0


def test_a_training_that_goes_on_does_not_teach_it_again(
    base: Base, data: AnchoringData, start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(anchoring, "pretrain_projection", lambda *_, steps, **__: calls.append(steps))
    settings = SETTINGS.model_copy(update={"projection_steps": 5, "checkpoint_every": 1})
    for _ in range(2):
        train_anchoring(base, data, data, settings, start())
        assert calls == [5]
