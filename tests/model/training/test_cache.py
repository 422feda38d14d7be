"""Records on disk are found by key, appended atomically and computed once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model.training import cache
from model.training.cache import RecordStore, fill, store_folder, text_keys

KEYS = text_keys([f"photo {number}" for number in range(10)])


def values(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 2, 3)).astype(np.float16)


def test_records_come_back_by_key(tmp_path: Path) -> None:
    store = RecordStore(tmp_path, (2, 3))
    store.append(KEYS[:6], values(6))
    again = RecordStore(tmp_path, (2, 3))
    assert len(again) == 6
    order = np.array([4, 0, 5])
    np.testing.assert_array_equal(again[again.rows(KEYS[order])], values(6)[order])
    np.testing.assert_array_equal(again.missing(KEYS), [6, 7, 8, 9])
    with pytest.raises(KeyError, match="4 of 10 records are missing"):
        again.rows(KEYS)


def test_an_append_that_was_killed_leaves_nothing(tmp_path: Path) -> None:
    store = RecordStore(tmp_path, (2, 3))
    store.append(KEYS[:2], values(2))
    with (tmp_path / "records.bin").open("ab") as records, (tmp_path / "keys.bin").open("ab") as keys:
        records.write(b"x" * 17)
        keys.write(KEYS[2].tobytes()[:9])
    store = RecordStore(tmp_path, (2, 3))
    assert len(store) == 2
    store.append(KEYS[2:3], values(1, seed=1))
    store.reload()
    np.testing.assert_array_equal(store[store.rows(KEYS[:3])], np.concatenate([values(2), values(1, seed=1)]))


def test_records_that_a_full_disk_cut_are_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RecordStore(tmp_path, (2, 3))
    store.append(KEYS[:4], values(4))
    with (tmp_path / "records.bin").open("r+b") as records:
        records.truncate(2 * store.record_bytes + 5)
    store = RecordStore(tmp_path, (2, 3))
    assert f"{tmp_path}: half-written records at the end; these are computed again" in capsys.readouterr().err
    np.testing.assert_array_equal(store.missing(KEYS[:4]), [2, 3])
    store.append(KEYS[2:4], values(4)[2:])
    store.reload()
    np.testing.assert_array_equal(store[store.rows(KEYS[:4])], values(4))
    (tmp_path / "store.json").write_text('{"shape"')
    assert len(RecordStore(tmp_path, (2, 3))) == 0
    assert f"{tmp_path}: holds a damaged store.json, expected " in capsys.readouterr().err
    assert len(RecordStore(tmp_path, (2, 3))) == 0
    assert capsys.readouterr().err == ""


def test_every_process_refuses_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that went on would wait for the others without end."""

    class Second:
        process_index, num_processes = 1, 2

        def wait_for_everyone(self) -> None:
            raise AssertionError("waits for a process that has ended")

    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 3})())
    store = RecordStore(tmp_path, (2, 3))
    with pytest.raises(ValueError, match="make room or train on fewer photos"):
        fill(store, KEYS, iter, np.stack, batch=4, label="test", accelerator=Second())


def test_only_missing_records_are_computed_in_full_batches(tmp_path: Path) -> None:
    batches: list[list[int]] = []

    def encode(items: list[int]) -> np.ndarray:
        batches.append(items)
        return np.stack([np.full((2, 3), item) for item in items])

    store = RecordStore(tmp_path, (2, 3))
    fill(store, KEYS[:5], lambda rows: iter(rows.tolist()), encode, batch=4, label="test")
    assert batches == [[0, 1, 2, 3], [4, 4, 4, 4]]
    rows = fill(store, KEYS[[0, 7, 4, 7]], lambda rows: iter(rows.tolist()), encode, batch=4, label="test")
    assert batches[2:] == [[1, 1, 1, 1]]
    np.testing.assert_array_equal(store[rows][:, 0, 0], [0, 1, 4, 1])


def test_a_slow_computation_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small records of a slow network are appended by time: by size they would all be lost."""
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    computed: list[int] = []

    def encode(rows: list[int], dies_at: int) -> np.ndarray:
        if dies_at in rows:
            raise KeyboardInterrupt
        computed.extend(rows)
        return np.array([[row, row] for row in rows])

    def run(dies_at: int) -> np.ndarray:
        return fill(
            RecordStore(tmp_path / "store", (2,)),
            KEYS[:8],
            lambda rows: iter(rows.tolist()),
            lambda rows: encode(rows, dies_at),
            batch=1,
            label="test",
        )

    with pytest.raises(KeyboardInterrupt):
        run(dies_at=6)
    assert len(RecordStore(tmp_path / "store", (2,)).missing(KEYS[:8])) == 2
    run(dies_at=-1)
    assert computed == list(range(8))


def test_records_of_another_shape_are_named_and_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RecordStore(tmp_path, (2, 3)).append(KEYS[:4], values(4))
    other = RecordStore(tmp_path, (2,))
    assert "holds {'shape': [2, 3], 'dtype': 'float16'}, expected {'shape': [2]" in capsys.readouterr().err
    assert len(other.missing(KEYS[:4])) == 4
    other.append(KEYS[:1], np.ones((1, 2)))
    assert len(RecordStore(tmp_path, (2,))) == 1


def test_records_that_do_not_fit_on_the_disk_are_refused(tmp_path: Path) -> None:
    store = RecordStore(tmp_path, (2, 3))
    with pytest.raises(ValueError, match="GB are free"):
        store.require_space(10**15)


def test_a_folder_depends_on_all_parts(tmp_path: Path) -> None:
    names = {store_folder(tmp_path, "latents", *parts) for parts in [("a", 64), ("a", 128), ("b", 64)]}
    assert len(names) == 3
    assert store_folder(tmp_path, "latents", "a", 64) in names
