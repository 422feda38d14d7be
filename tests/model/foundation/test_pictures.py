"""Arrays of pictures are cached whole; a cut one, or one of other pictures, is made again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from model.foundation.people import Groups, People
from model.foundation.pictures import boxes_of, buckets, cached, choose, shrunk
from model.network.crop_transform import squared


def drawn(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)


def test_a_cut_array_and_one_of_other_pictures_are_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "photos_4.npy"
    assert shrunk(drawn(5), file, 0.5).shape == (5, 4, 4, 3)
    whole = file.read_bytes()
    os.truncate(file, len(whole) // 2)
    assert shrunk(drawn(5), file, 0.5).shape == (5, 4, 4, 3)
    assert file.read_bytes() == whole
    assert f"{file}: not the array of these pictures" in capsys.readouterr().err
    assert shrunk(drawn(6), file, 0.5)[5].max() == 5
    assert "5 rows, expected 6" in capsys.readouterr().err


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> np.ndarray:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        cached(tmp_path / "latents.npy", 3, fail)
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_their_own_size_are_not_copied(tmp_path: Path) -> None:
    photos = drawn(2)
    assert shrunk(photos, tmp_path / "photos_8.npy", 1.0) is photos
    assert list(tmp_path.iterdir()) == []


def group(count: int, width: int, height: int, people: int) -> Groups:
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros((count, people, *shape), np.float32)

    boxes = zeros(4)
    boxes[..., 2:] = [width / 2, height]
    return Groups(
        photos=np.zeros((count, height, width, 3), np.uint8),
        landmarks=zeros(68, 2),
        keypoints=zeros(5, 2),
        boxes=boxes,
        angles=zeros(3),
        identity=np.zeros((count, people), np.int32),
        expression=zeros(),
        pose=zeros(),
        prompts=("",) * count,
        face_prompts=(("",) * people,) * count,
    )


def people(*groups: Groups) -> People:
    zeros = np.zeros((6, 1), np.float32)
    return People(
        photos=np.zeros((6, 8, 8, 3), np.uint8),
        landmarks=zeros,
        keypoints=zeros,
        boxes=np.zeros((6, 4), np.float32),
        angles=zeros,
        identity=np.arange(6),
        expression=zeros[:, 0],
        pose=zeros[:, 0],
        prompts=("",) * 6,
        face_prompts=("",) * 6,
        groups=groups,
    )


def test_batches_have_one_size_and_mix_single_people_with_groups_of_it(tmp_path: Path) -> None:
    made = buckets(people(group(3, 8, 8, 2), group(4, 12, 6, 3)), tmp_path, 4)
    assert [[kind.photos.shape[1:3] for kind in kinds] for kinds in made] == [[(4, 4), (4, 4)], [(3, 6)]]
    rng, sizes = np.random.default_rng(0), set()
    for _ in range(20):
        chosen = choose(made, rng, 8, 0.25)
        counts = [len(rows) for _, rows in chosen]
        assert counts in ([2, 6], [8])
        boxes = boxes_of(chosen)
        assert boxes.shape == (8, 2 if len(counts) == 2 else 3, 4)
        assert boxes[-1, 0].tolist() == [0, 0, 0.5, 1]
        sizes.add(tuple(counts))
    assert len(sizes) == 2
    # As the first edition has it: seven singles of eight, one pair.
    assert [len(rows) for _, rows in choose(made[:1], rng, 16, 7 / 8)] == [14, 2]


def test_training_without_pictures_of_several_people_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no pictures of two people .*--groups above 0"):
        buckets(people(), tmp_path, 4)


def test_wide_pictures_are_squared_with_bars_and_squares_stay() -> None:
    image = np.full((4, 10, 3), 200, np.uint8)
    square = squared(image)
    assert square.shape == (10, 10, 3)
    assert (square[3:7] == 200).all()
    assert (square[[0, 9]] == [123, 117, 104]).all()
    assert squared(square) is square
