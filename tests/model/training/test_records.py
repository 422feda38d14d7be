"""What a cache lacks is computed when it is drawn, with the values that it would have had from the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.network.base import Base
from model.training import eight_bits, records
from model.training.anchoring import anchoring_data, train_anchoring
from model.training.cache import RecordStore, text_keys
from model.training.encode import FORMATS, RecordEncoder
from model.training.loop import Run
from model.training.photos import Photos
from model.training.records import Records, Source
from tests.model.training.test_anchoring import SETTINGS

SHAPE = (3, 50)
KEYS = text_keys([f"photo {number}" for number in range(9)])


def values(rows: list[int]) -> np.ndarray:
    return np.stack([np.random.default_rng(row).normal(size=SHAPE) * 10.0**row for row in rows]).astype(np.float32)


class Encoder:
    """Computes records, and notes which."""

    def __init__(self) -> None:
        self.computed: list[int] = []

    def __call__(self, rows: list[int]) -> np.ndarray:
        self.computed += rows
        return values(rows)


def made(folder: Path, kept: str, keys: np.ndarray = KEYS) -> tuple[Records, Encoder]:
    encoder = Encoder()
    store = None if kept == "none" else RecordStore(folder, SHAPE, kept)
    return Records("test", keys, Source(lambda rows: iter(rows.tolist()), encoder, 2), SHAPE, store), encoder


@pytest.mark.parametrize("kept", ["float32", "float16", "int8"])
def test_what_was_just_computed_is_what_will_be_read(tmp_path: Path, kept: str) -> None:
    here, encoder = made(tmp_path, kept, KEYS[:5])
    order = np.array([3, 0, 3])
    first = here[order]
    assert sorted(set(encoder.computed)) == [0, 3]
    assert here.missing == 5  # not yet appended
    np.testing.assert_array_equal(here[order], first)
    here.flush()
    assert (here.missing, encoder.computed) == (3, [0, 3])
    again, unused = made(tmp_path, kept, KEYS[:5])
    np.testing.assert_array_equal(again[order], first)
    assert not unused.computed
    again[np.arange(5)]  # some stored, some not
    assert sorted(set(unused.computed)) == [1, 2, 4]
    bound = {"float32": 0.0, "float16": 1e-3, "int8": 1 / 127}[kept]
    largest = np.abs(values([3])).max()
    assert np.abs(first[0] - values([3])[0]).max() <= bound * largest


def test_nothing_is_kept_of_a_kind_without_a_store(tmp_path: Path) -> None:
    here, encoder = made(tmp_path / "store", "none")
    for _ in range(2):
        np.testing.assert_array_equal(here[np.array([2, 1, 2])], values([2, 1, 2]))
    here.flush()
    assert encoder.computed == [1, 2, 1, 2]
    assert not (tmp_path / "store").exists()


def test_records_of_another_process_are_read_and_not_kept_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, first), (other, second) = made(tmp_path, "float16"), made(tmp_path, "float16")
    one[np.array([0, 1])]
    other[np.array([1, 2])]
    one.flush()
    other.flush()
    assert len(RecordStore(tmp_path, SHAPE)) == 3
    monkeypatch.setattr(records, "APPEND_SECONDS", -1.0)
    one[np.array([2])]
    assert (first.computed, second.computed) == ([0, 1], [1, 2])


def test_an_interrupted_training_keeps_what_it_computed(
    base: Base, tmp_path: Path, make_photos: Callable[..., Photos]
) -> None:
    photos = make_photos(1, 2, 3, 4, 5, 6)

    def interrupted() -> None:
        with RecordEncoder(tmp_path, 2, None) as encoder:
            anchoring_data(base, photos, encoder, 64).latents.tensor(np.array([0, 4]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert RecordEncoder(tmp_path, 2, None).latents(base, photos, 64).missing == 4


def trained(base: Base, photos: Photos, encoder: RecordEncoder, run: Run) -> dict[str, torch.Tensor]:
    run.checkpoints.clear()
    with encoder:
        data = anchoring_data(base, photos, encoder, 64)
        adapter, _ = train_anchoring(base, data, data, SETTINGS.model_copy(update={"probe_photos": 1}), run)
    return adapter.state_dict()


def test_a_training_on_an_empty_cache_is_one_on_a_full_cache(
    base: Base, tmp_path: Path, make_photos: Callable[..., Photos], start: Callable[..., Run]
) -> None:
    photos = make_photos(*range(8))
    results = {}
    for formats in ({}, {"latents": "int8", "clip": "int8", "text": "none"}):
        encoder = RecordEncoder(tmp_path / str(len(formats)), 2, None, formats)
        begun = trained(base, photos, encoder, start())
        data = anchoring_data(base, photos, encoder, 64)
        assert 0 < data.latents.missing < 8  # it did not wait for the rest
        for kind in (data.latents, data.states, data.texts.records, data.faces.records):
            kind.complete()
        full = trained(base, photos, encoder, start())
        assert all(torch.equal(value, full[name]) for name, value in begun.items())
        results[len(formats)] = begun
    assert any(not torch.equal(value, results[3][name]) for name, value in results[0].items())


def test_formats_have_folders_of_their_own_and_the_earlier_ones_stay(
    base: Base, tmp_path: Path, make_photos: Callable[..., Photos]
) -> None:
    def folder(**formats: str) -> Path:
        store = RecordEncoder(tmp_path, 2, None, formats).clip_states(base, make_photos(1)).store
        assert store is not None
        return store.folder

    assert folder() == folder(clip=FORMATS["clip"])
    assert len({folder(), folder(clip="int8"), folder(clip="float32")}) == 3


def test_what_does_not_fit_is_named_with_its_size_before_the_work(
    base: Base, tmp_path: Path, make_photos: Callable[..., Photos], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = RecordEncoder(tmp_path, 2, None, {"text": "none"})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 3})())
    with pytest.raises(ValueError, match=r"GB are needed \(clip .* GB, latents .* GB, faces .* GB\), 0.0 GB are free"):
        anchoring_data(base, make_photos(1), encoder, 64)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=200),
    st.integers(1, 3),
)
def test_eight_bits_are_right_to_a_127th_of_the_block(numbers: list[float], rows: int) -> None:
    given_ = np.tile(np.array(numbers, np.float32), (rows, 1))
    packed = eight_bits.pack(given_)
    assert packed.shape == (rows, eight_bits.packed_bytes(len(numbers)))
    read = eight_bits.unpack(packed, len(numbers))
    for start in range(0, len(numbers), eight_bits.BLOCK):
        block = slice(start, start + eight_bits.BLOCK)
        # Half a step, the rounding of the scale, and the least scale of half precision.
        bound = np.abs(given_[:, block]).max() * (0.5 / 127 + 1e-3) + 1e-5
        assert np.abs(read[:, block] - given_[:, block]).max() <= bound


def test_numbers_that_are_not_finite_are_refused() -> None:
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="cannot be stored in eight bits"):
            eight_bits.pack(np.array([[1.0, wrong]]))
