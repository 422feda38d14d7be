"""Arrays of pictures are cached whole; a cut one, or one of other pictures, is made again."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model.foundation.pictures import cached, require_pairs, shrunk


def people(photos: int, pairs: int = 0) -> SimpleNamespace:
    def drawn(count: int) -> np.ndarray:
        return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)

    group = {"photos": drawn(pairs)} if pairs else {}
    return SimpleNamespace(photos=drawn(photos), group=group, group_train=np.arange(pairs))


def test_a_cut_array_and_one_of_other_pictures_are_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    singles, pairs = shrunk(people(5, 2), tmp_path, 4)
    assert (singles.shape, pairs.shape) == ((5, 4, 4, 3), (2, 4, 4, 3))
    file = tmp_path / "photos_4.npy"
    whole = file.read_bytes()
    os.truncate(file, len(whole) // 2)
    assert shrunk(people(5), tmp_path, 4)[0].shape == (5, 4, 4, 3)
    assert file.read_bytes() == whole
    assert f"{file}: not the array of these pictures" in capsys.readouterr().err
    assert shrunk(people(6), tmp_path, 4)[0][5].max() == 5
    assert "5 rows, expected 6" in capsys.readouterr().err


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> np.ndarray:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        cached(tmp_path / "latents.npy", 3, fail)
    assert list(tmp_path.iterdir()) == []


def test_without_pairs_photos_are_shrunk_and_training_on_pairs_is_refused(tmp_path: Path) -> None:
    assert shrunk(people(5), tmp_path, 4)[1].shape == (0, 4, 4, 3)
    with pytest.raises(ValueError, match=r"no pictures of two people .*--groups above 0"):
        require_pairs(people(5))
