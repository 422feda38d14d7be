"""What the frozen models say about a photo does not depend on which photos were looked at with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.face.face_geometry import crop_landmarks, face_crop
from model.network.base import Base
from model.training.encode import RecordEncoder, clip_records, face_records, latent_records, text_records
from model.training.photos import PhotoContent, Photos


@pytest.fixture
def encoder(tmp_path: Path) -> RecordEncoder:
    return RecordEncoder(tmp_path, 4, None)


def test_records_hold_what_the_models_say(
    base: Base, encoder: RecordEncoder, make_photos: Callable[..., Photos], photo_content: Callable[[int], PhotoContent]
) -> None:
    found = make_photos(1, 2)
    item = photo_content(2)
    latents = latent_records(base, found, encoder, 64).tensor(np.array([1]))
    expected = base.encode_images(item.image[None])
    np.testing.assert_allclose(latents.numpy(), expected.numpy(), atol=2e-3, rtol=2e-3)
    states = clip_records(base, found, encoder).tensor(np.array([1]))
    crop = face_crop(item.image, item.keypoints, item.landmarks, base.crop_size)
    np.testing.assert_allclose(states.numpy(), base.encode_crops(crop[None]).numpy(), atol=5e-3, rtol=5e-3)
    faces = face_records(found, encoder)
    np.testing.assert_array_equal(faces.embeddings(np.array([1]))[0].numpy(), item.embedding)
    np.testing.assert_allclose(faces.boxes(np.array([1]))[0].numpy(), [0.25, 0.125, 0.75, 1.0])
    np.testing.assert_allclose(faces.landmarks(np.array([1]))[0], crop_landmarks(item.landmarks, item.keypoints))
    texts = text_records(base, ["a photo", ""], encoder)
    np.testing.assert_allclose(
        texts.tensor(np.array([1])).numpy(), base.encode_text([""])[0].numpy(), atol=5e-3, rtol=5e-3
    )


def test_a_record_is_the_same_bits_whatever_was_missing(
    base: Base, tmp_path: Path, make_photos: Callable[..., Photos]
) -> None:
    every = np.arange(6)
    one, other = RecordEncoder(tmp_path / "one", 4, None), RecordEncoder(tmp_path / "other", 4, None)
    numbers = (0, 1, 2, 3, 4, 5)
    whole = make_photos(*numbers)
    # The other cache met some of the photos before, in another order.
    latent_records(base, make_photos(4, 1), other, 64)
    clip_records(base, make_photos(5, 0, 3), other)
    np.testing.assert_array_equal(
        latent_records(base, whole, one, 64)[every], latent_records(base, whole, other, 64)[every]
    )
    np.testing.assert_array_equal(clip_records(base, whole, one)[every], clip_records(base, whole, other)[every])


def test_a_photo_of_another_size_is_refused(
    base: Base, encoder: RecordEncoder, make_photos: Callable[..., Photos]
) -> None:
    with pytest.raises(ValueError, match=r"a photo of 64x64 pixels, base.resolution is 128"):
        latent_records(base, make_photos(0), encoder, 128)
