"""Choose varied photos of a person."""

from __future__ import annotations

import numpy as np

from pipelines.core.sections.data import Curate
from pipelines.data.curation.choice import choose
from pipelines.data.curation.faces import Faces
from tests.pipelines.data.curation.rows import face_row, make_faces


def _named(faces: Faces) -> Faces:
    faces.rows["identity"] = [name.split("-")[0] for name in faces.rows["file_name"]]
    return faces


def test_rare_expressions_and_poses_are_chosen_before_common_ones() -> None:
    rows = [face_row(f"a-{photo:03}.jpg", 1, photo) for photo in range(60)]
    rare = [("happy", 0.0), ("sad", 0.0), ("neutral", 60.0), ("neutral", -30.0), ("angry", 30.0)]
    rows += [
        face_row(f"a-{100 + number}.jpg", 1, 100 + number, expression=expression, yaw=yaw, side=50.0)
        for number, (expression, yaw) in enumerate(rare)
    ]
    faces = _named(make_faces(rows))
    chosen = choose(faces, Curate(min_photos=3, max_photos=8))["a"]
    assert len(chosen) == 8
    assert set(range(60, 65)) <= set(chosen)
    assert (faces.rows["reason"] == "enough").sum() == 57


def test_the_best_picture_of_a_cell_comes_first_then_the_most_different() -> None:
    still = np.full(136, 0.5, np.float32)
    moved = still.copy()
    moved[96:136] += 0.05  # the mouth
    rows = [
        face_row("a-0.jpg", 1, 0, landmarks=still, side=80.0),
        face_row("a-1.jpg", 1, 1, landmarks=still, side=200.0),
        face_row("a-2.jpg", 1, 2, landmarks=still + 0.001, side=150.0),
        face_row("a-3.jpg", 1, 3, landmarks=moved, side=60.0),
    ]
    faces = _named(make_faces(rows))
    assert choose(faces, Curate(min_photos=1, max_photos=2)) == {"a": [1, 3]}


def test_a_person_with_too_few_photos_is_left_out_with_a_detail() -> None:
    rows = [face_row(f"a-{photo}.jpg", 1, photo) for photo in range(5)] + [
        face_row(f"b-{photo}.jpg", 2, photo) for photo in range(2)
    ]
    faces = _named(make_faces(rows))
    assert list(choose(faces, Curate(min_photos=3))) == ["a"]
    assert faces.rows["reason"].tolist() == [None] * 5 + ["too_few"] * 2
    assert faces.rows.at[5, "detail"] == "2 of b, at least 3"
