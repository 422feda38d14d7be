"""The store of pictures: without loss, whole or not at all, and removed when nobody uses them any more."""

from __future__ import annotations

import contextlib
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.errors import StageFailed
from pipelines.core.locks import hold, is_held
from pipelines.evaluation.picture_store import DrawnPicture, PictureStore, StoredPictures
from pipelines.evaluation.readings import Readings
from pipelines.evaluation.scoring import JudgedPictures

KEYS = [f"{number:064d}" for number in range(5)]


def picture(number: int, *, gate: bool = True) -> DrawnPicture:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (24, 48, 3), dtype=np.uint8)
    return DrawnPicture(image, rng.random((4, 8), np.float32) if gate else None)


def readings(count: int, seed: int) -> Readings:
    rng = np.random.default_rng(seed)
    found = rng.random(count) > 0.5
    numbers = rng.integers(-1, 5, (2, count))
    boxes, embeddings = rng.random((count, 4), np.float32), rng.random((count, 3), np.float32)
    return Readings(found, boxes, embeddings, *numbers, np.where(found, rng.random(count), np.nan))


def same(first: Readings, second: Readings) -> bool:
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def filled(folder: Path) -> PictureStore:
    store = PictureStore(folder)
    for keys in (KEYS[:2], KEYS[2:]):
        store.write(keys, [picture(int(key), gate=key != KEYS[1]) for key in keys], 1)
    return PictureStore(folder)


def test_pictures_and_gates_come_back_as_they_were(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.find(KEYS)
    assert [key in store for key in (*KEYS, "0" * 63 + "9")] == [True] * 5 + [False]
    shown = StoredPictures(store, [KEYS[3], KEYS[1]])
    for found, number in zip(shown.with_more(StoredPictures(store, KEYS[:1])), (3, 1, 0), strict=True):
        expected = picture(number, gate=number != 1)
        np.testing.assert_array_equal(found.image, expected.image)
        assert (found.gate is None) == (expected.gate is None)
        if found.gate is not None and expected.gate is not None:
            np.testing.assert_array_equal(found.gate, expected.gate)
    assert store.batches([KEYS[4], KEYS[0], KEYS[3]]) == [KEYS[2:], KEYS[:2]]
    pictures, people = store.read(KEYS[:2])
    assert (len(pictures), people) == (2, 1)


@pytest.mark.parametrize("harm", ["cut", "changed", "empty"])
def test_a_damaged_batch_is_named_and_gone_and_others_stay(
    tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = filled(tmp_path)
    file = store.file_of(KEYS[:2])
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.write_bytes({"cut": file.read_bytes()[:-40], "changed": bytes(body), "empty": b""}[harm])
    store.find(KEYS)
    assert [key in store for key in KEYS] == [False, False, True, True, True]
    assert not file.exists()
    assert f"{file}: damaged" in capsys.readouterr().err


def test_what_was_read_comes_back_in_any_order_with_all_faces(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.find(KEYS)
    parts = [
        JudgedPictures(readings(2, 0), np.eye(2, dtype=np.float32), np.array([0.5, np.nan]), {}),
        JudgedPictures(
            readings(3, 1), np.ones((3, 2), np.float32), np.full(3, np.nan), {0: readings(2, 2), 2: readings(0, 3)}
        ),
    ]
    for keys, part in zip((KEYS[:2], KEYS[2:]), parts, strict=True):
        assert not store.is_judged(keys, "judges")
        store.write_judged(keys, "judges", part)
        assert store.is_judged(keys, "judges")
        assert not store.is_judged(keys, "others")
    found = store.judged([KEYS[4], KEYS[0], KEYS[2]], "judges")
    assert same(found.readings, Readings.joined([part.readings for part in parts]).rows([4, 0, 2]))
    assert set(found.faces) == {0, 2}
    assert same(found.faces[2], parts[1].faces[0])
    assert len(found.faces[0].found) == 0
    np.testing.assert_array_equal(found.features, [[1, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(found.gate_in_face, [np.nan, 0.5, np.nan])


def _evaluated(folder: Path, count: int) -> int:
    """Read what was read of so many pictures back from the store; return the memory that took at most, in bytes."""
    folder.mkdir()
    store, rng = PictureStore(folder), np.random.default_rng(0)
    keys = [f"{number:064d}" for number in range(count)]
    for start in range(0, count, 8):
        batch = keys[start : start + 8]
        store.write(batch, [DrawnPicture(np.zeros((8, 8, 3), np.uint8), None)] * len(batch), 1)
        part = replace(readings(len(batch), start), embeddings=rng.random((len(batch), 512), np.float32))
        judged = JudgedPictures(part, rng.random((len(batch), 512), np.float32), np.full(len(batch), np.nan), {})
        store.write_judged(batch, "judges", judged)
        store.add(batch)
    tracemalloc.start()
    try:
        found = store.judged(keys, "judges")
        assert found.features.shape == found.readings.embeddings.shape == (count, 512)
        assert float(found.features.sum(dtype=float)) == pytest.approx(count * 256, rel=0.05)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_what_was_read(tmp_path: Path) -> None:
    few, many = (_evaluated(tmp_path / str(count), count) for count in (200, 2000))
    assert many - few < 0.15 * 1800 * 2 * 512 * 4, "numbers and keys of pictures; no embeddings, no features"


def test_the_last_evaluation_stays_and_unfinished_ones_do(tmp_path: Path) -> None:
    first, second = KEYS[:2], KEYS[2:]
    store = filled(tmp_path)
    with contextlib.suppress(KeyboardInterrupt), store.at_work():
        store.find(second)
        raise KeyboardInterrupt
    (tmp_path / ".0.pictures.npz.7.part").write_bytes(b"half")
    (tmp_path / ".people.part").mkdir()
    (tmp_path / ".people.part" / "0017-0032.html").write_text("half")
    for used, left in ((first, 2), (second, 1)):
        store = PictureStore(tmp_path)
        with store.at_work():
            store.find(used)
        assert len(list(tmp_path.glob("*.pictures.npz"))) == left, "what nobody finished with is left alone"
    assert PictureStore(tmp_path).file_of(second).is_file()
    assert not list(tmp_path.glob(".*.part"))


def test_evaluations_share_the_folder_and_forget_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, at_work = tmp_path / ".lock", StageFailed("at work")
    with PictureStore(tmp_path).at_work(), PictureStore(tmp_path).at_work():
        assert is_held(lock)
        with pytest.raises(StageFailed, match="at work"), hold(lock, at_work):
            pass
    assert not is_held(lock)
    monkeypatch.setattr("pipelines.core.locks._MOMENT", 0.0)
    with (
        hold(lock, at_work),
        pytest.raises(StageFailed, match="wait for it to end"),
        PictureStore(tmp_path).at_work(),
    ):
        pass
