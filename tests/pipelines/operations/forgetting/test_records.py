"""Record stores keep the records that remaining photos use, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.training.cache import RecordStore, text_keys
from pipelines.operations.forgetting.records import keep_only


def sorted_keys(keys: np.ndarray) -> np.ndarray:
    return np.sort(np.ascontiguousarray(keys).view("S32").reshape(-1))


@pytest.mark.parametrize("kept", ["float16", "int8"])
def test_no_byte_of_a_removed_record_stays_in_any_format(tmp_path: Path, kept: str) -> None:
    keys, values = text_keys(["a", "b"]), np.random.default_rng(0).normal(size=(2, 3, 100))
    store = RecordStore(tmp_path / "clip_states" / "0", (3, 100), kept)
    store.append(keys, values)
    store.reload()
    other = store[store.rows(keys[1:])]
    removed = store.packed(values[:1]).tobytes()
    assert removed in (store.folder / "records.bin").read_bytes()
    assert keep_only(store.folder, sorted_keys(keys[1:])) == 1
    left = (store.folder / "records.bin").read_bytes()
    assert not any(removed[start : start + 8] in left for start in range(0, len(removed), 8))
    again = RecordStore(store.folder, (3, 100), kept)
    np.testing.assert_array_equal(again[again.rows(keys[1:])], other)


def test_other_records_are_unchanged(tmp_path: Path) -> None:
    keys = text_keys([f"photo {number}" for number in range(50)])
    values = np.random.default_rng(0).normal(size=(50, 3, 4)).astype(np.float32)
    store = RecordStore(tmp_path / "latents" / "0", (3, 4), "float32")
    store.append(keys, values)
    kept = np.array([0, 7, 8, 33, 49])
    assert keep_only(store.folder, sorted_keys(keys[kept])) == 45
    again = RecordStore(store.folder, (3, 4), "float32")
    assert len(again) == 5
    np.testing.assert_array_equal(again[again.rows(keys[kept])], values[kept])
    assert (store.folder / "records.bin").stat().st_size == 5 * 48
    assert values[1].tobytes() not in (store.folder / "records.bin").read_bytes()
    assert keep_only(store.folder, sorted_keys(keys)) == 0
    again.append(keys[:2] + 1, values[:2])
    again.reload()
    np.testing.assert_array_equal(again[again.rows(keys[kept])], values[kept])


def test_records_without_a_key_are_removed(tmp_path: Path) -> None:
    keys = text_keys(["a"])
    store = RecordStore(tmp_path / "s", (2,), "float32")
    store.append(keys, np.ones((1, 2)))
    with (store.folder / "records.bin").open("ab") as file:
        file.write(b"what a killed process left")
    assert keep_only(store.folder, sorted_keys(keys)) == 0
    assert (store.folder / "records.bin").read_bytes() == np.ones(2, np.float32).tobytes()


def test_nothing_claimed_leaves_an_empty_store(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "s", (2,), "float32")
    assert keep_only(store.folder, sorted_keys(text_keys(["a"]))) == 0
    store.append(text_keys(["a", "b"]), np.ones((2, 2)))
    assert keep_only(store.folder, np.empty(0, "S32")) == 2
    assert len(RecordStore(store.folder, (2,), "float32")) == 0
