"""What the IMR's targets are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.adapter import Adapter
from model.base import Base
from model.training.encode import Desk, clip_records, face_records
from model.training.photos import Photos
from model.training.reconfiguration import ReconfigurationData, make_trial, person_embeddings, reconfiguration_data

TWO_AND_THREE = np.array([1, 0, 1, 0, 1], np.int32)


@pytest.fixture
def photos(make_photos: Callable[..., Photos]) -> Photos:
    return replace(make_photos(1, 2, 3, 4, 5), person=TWO_AND_THREE, people=["a", "b"])


@pytest.fixture
def adapter(base: Base, make_adapter: Callable[..., Adapter]) -> Adapter:
    return make_adapter(base, imr=False)


@pytest.fixture
def made(base: Base, adapter: Adapter, tmp_path: Path) -> Callable[..., ReconfigurationData]:
    def make(photos: Photos, target_embedding: str) -> ReconfigurationData:
        return reconfiguration_data(
            base,
            adapter,
            photos,
            Desk(tmp_path / "cache", 4, None),
            resolution=64,
            adapter_digest="one",
            target_embedding=target_embedding,
        )

    return make


def test_a_person_is_the_mean_of_their_photos(base: Base, photos: Photos, tmp_path: Path) -> None:
    faces = face_records(photos, Desk(tmp_path / "cache", 4, None))
    found = person_embeddings(photos, faces)
    # The photos' embeddings are unit vectors at right angles to each other.
    for person, count in enumerate((2, 3)):
        own = found[person] @ faces.embeddings(np.flatnonzero(person == TWO_AND_THREE)).numpy().T
        np.testing.assert_allclose(own, count**-0.5, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


def test_targets_are_made_with_what_is_asked_for(
    base: Base, adapter: Adapter, photos: Photos, tmp_path: Path, made: Callable[..., ReconfigurationData]
) -> None:
    desk = Desk(tmp_path / "cache", 4, None)
    states, faces = clip_records(base, photos, desk), face_records(photos, desk)
    every = np.arange(len(photos))
    with torch.no_grad():
        own = adapter.identity_tokens(faces.embeddings(every), states.tensor(every))
        means = F.normalize(torch.stack([faces.embeddings(rows).mean(0) for rows in photos.by_person()]), dim=1)
        shared = adapter.identity_tokens(means[TWO_AND_THREE], states.tensor(every))
    for asked, expected in (("photo", own), ("person", shared)):
        data = made(photos, asked)
        trial = make_trial(data, np.array([0]), np.array([[2, 4]]), np.zeros((1, 2), bool))
        torch.testing.assert_close(trial.tokens, own[[0]], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(trial.expected, expected[[2, 4]], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(own, shared, atol=1e-3)


def test_photos_grouped_otherwise_are_made_anew(photos: Photos, made: Callable[..., ReconfigurationData]) -> None:
    every = np.arange(len(photos))
    before = made(photos, "person").expected.tensor(every)
    regrouped = made(replace(photos, person=np.sort(TWO_AND_THREE)), "person").expected.tensor(every)
    assert not torch.allclose(before, regrouped, atol=1e-3)
    torch.testing.assert_close(made(photos, "person").expected.tensor(every), before)
