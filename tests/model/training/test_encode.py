"""A photo's records hold the outputs of the frozen models and do not depend on the rest of the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.face.face_geometry import crop_landmarks, face_crop
from model.network.base import Base
from model.training.encode import RecordEncoder, base_digest
from model.training.photos import PhotoContent, Photos


@pytest.fixture
def encoder(tmp_path: Path) -> RecordEncoder:
    return RecordEncoder(tmp_path, 4, None)


def test_records_hold_the_outputs_of_the_models(
    base: Base, encoder: RecordEncoder, make_photos: Callable[..., Photos], photo_content: Callable[[int], PhotoContent]
) -> None:
    photos, item, second = make_photos(1, 2), photo_content(2), np.array([1])
    latents = encoder.latents(base, photos, 64).tensor(second)
    np.testing.assert_allclose(latents, base.encode_images(item.image[None]), atol=2e-3, rtol=2e-3)
    crop = face_crop(item.image, item.keypoints, item.landmarks, base.crop_size)
    states = encoder.clip_states(base, photos).tensor(second)
    np.testing.assert_allclose(states, base.encode_crops(crop[None]), atol=5e-3, rtol=5e-3)
    # Crops with hair have records of their own.
    crop = face_crop(item.image, item.keypoints, item.landmarks, base.crop_size, hair=True)
    shown = replace(base, hair=True)
    states = encoder.clip_states(shown, photos).tensor(second)
    np.testing.assert_allclose(states, base.encode_crops(crop[None]), atol=5e-3, rtol=5e-3)
    assert base_digest(shown) != base_digest(base)
    faces = encoder.faces(photos)
    np.testing.assert_array_equal(faces.embeddings(second)[0], item.embedding)
    np.testing.assert_allclose(faces.boxes(second)[0], [0.25, 0.125, 0.75, 1.0])
    np.testing.assert_allclose(faces.landmarks(second)[0], crop_landmarks(item.landmarks, item.keypoints))
    texts = encoder.texts(base, ["a photo", ""])(second)
    assert texts.pooled.shape == (1, 0)
    np.testing.assert_allclose(texts.states, base.encode_text([""])[0], atol=5e-3, rtol=5e-3)


def test_a_record_is_the_same_bits_whatever_was_missing(
    base: Base, tmp_path: Path, make_photos: Callable[..., Photos]
) -> None:
    every = np.arange(6)
    one, other = RecordEncoder(tmp_path / "one", 4, None), RecordEncoder(tmp_path / "other", 4, None)
    whole = make_photos(*every)
    # The other cache already has some of the photos, in another order.
    other.latents(base, make_photos(4, 1), 64)
    other.clip_states(base, make_photos(5, 0, 3))
    np.testing.assert_array_equal(one.latents(base, whole, 64)[every], other.latents(base, whole, 64)[every])
    np.testing.assert_array_equal(one.clip_states(base, whole)[every], other.clip_states(base, whole)[every])


def test_a_photo_of_another_size_is_refused(
    base: Base, encoder: RecordEncoder, make_photos: Callable[..., Photos]
) -> None:
    with pytest.raises(ValueError, match=r"a photo of 64x64 pixels, base.resolution is 128"):
        encoder.latents(base, make_photos(0), 128)
