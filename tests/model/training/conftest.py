"""Random photos, runs and precomputed records for the training tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.face.face_geometry import CROP_TEMPLATE
from model.network.base import Base
from model.training.anchoring import AnchoringData, anchoring_data
from model.training.cache import text_keys
from model.training.encode import RecordEncoder
from model.training.loop import Run
from model.training.photos import PhotoContent, Photos
from model.training.resume import Checkpoints


def content(number: int) -> PhotoContent:
    rng = np.random.default_rng(number)
    return PhotoContent(
        image=np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8),
        bbox=np.array([16, 8, 48, 64], np.float32),
        keypoints=CROP_TEMPLATE * 64,
        landmarks=rng.uniform(16, 48, (68, 2)).astype(np.float32),
        embedding=(np.eye(512, dtype=np.float32)[number]),
    )


@pytest.fixture
def photo_content() -> Callable[[int], PhotoContent]:
    """Return a maker of 64 px photos by number."""
    return content


@pytest.fixture
def make_photos() -> Callable[..., Photos]:
    """Return a maker of `Photos` by numbers, all of one person and with one prompt."""

    def make(*numbers: int) -> Photos:
        def read(positions: np.ndarray) -> Iterator[PhotoContent]:
            return (content(numbers[position]) for position in positions)

        zeros = np.zeros(len(numbers), np.int32)
        keys = text_keys([str(number) for number in numbers])
        return Photos(keys, zeros, ["p"], zeros, ["a photo"], zeros.astype(np.int8), zeros.astype(np.int8), read)

    return make


@pytest.fixture
def data(base: Base, tmp_path: Path, make_photos: Callable[..., Photos]) -> AnchoringData:
    """Data that is all in the cache."""
    found = anchoring_data(base, make_photos(1, 2, 3, 4), RecordEncoder(tmp_path / "cache", 4, None), 64)
    for records in (found.latents, found.states, found.texts.records, found.faces.records):
        records.complete()
    return found


@pytest.fixture
def start(accelerator: Callable[[str], Any], tmp_path: Path) -> Callable[..., Run]:
    """Return a maker of anchoring runs in any precision, each resuming from the checkpoints of the previous one."""
    return lambda precision="no": Run(accelerator(precision), Checkpoints(tmp_path, "train_anchoring", "key"))


@pytest.fixture
def accelerator() -> Iterator[Callable[[str], Any]]:
    """Return a maker of accelerators of any precision; their process-wide state is reset afterwards."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    def make(precision: str) -> Any:
        AcceleratorState._reset_state(True)
        return Accelerator(mixed_precision=precision, cpu=True)

    yield make
    AcceleratorState._reset_state(True)
