"""Leave out unusable faces with their reasons, and all but the best of nearly identical pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.core.sections.data import Curate
from pipelines.data.curation.quality import leave_out_near_duplicates, leave_out_poor, leave_out_repeats
from tests.pipelines.data.curation.rows import face_row, make_faces

PARAMS = Curate(min_face_side=50, min_score=0.6, min_sharpness=20, max_yaw=70, max_pitch=40, max_outside_share=0.1)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"side": 49.0}, "small_face", "49px < 50px"),
        ({"det_score": 0.55}, "uncertain_face", "0.55 < 0.6"),
        ({"sharpness": 3.0}, "blurred", "3 < 20"),
        ({"yaw": -75.0}, "turned_away", "yaw -75°, at most 70°"),
        ({"pitch": 41.0}, "turned_away", "pitch 41°, at most 40°"),
        ({"bbox": [-50.0, 80, 50, 220]}, "cut_off", "0.50 of the face box is outside of the photo"),
        ({"side": 50.0, "det_score": 0.6, "sharpness": 20.0, "yaw": 70.0}, None, None),
    ],
)
def test_poor_faces_are_left_out(changes: dict[str, Any], reason: str | None, detail: str | None) -> None:
    faces = make_faces([face_row("a.jpg", 1, 0, **changes)])
    leave_out_poor(faces, PARAMS)
    assert (faces.rows.at[0, "reason"], faces.rows.at[0, "detail"]) == (reason, detail)


def test_a_reason_from_the_analysis_is_kept_and_a_photo_without_a_face_gets_one() -> None:
    absent = dict.fromkeys(("face_index", "bbox", "landmarks", "embedding", "texture", "thumbnail", "side", "yaw"))
    rows = [
        face_row("a.jpg", 1, 0, **absent, reason="truncated", n_faces=0),
        face_row("b.jpg", 1, 1, **absent, n_faces=0),
    ]
    faces = make_faces(rows)
    leave_out_poor(faces, PARAMS)
    assert faces.rows["reason"].tolist() == ["truncated", "no_face"]
    assert not faces.candidates.any()


def test_the_first_file_of_the_same_bytes_is_kept() -> None:
    faces = make_faces(
        [face_row(name, 1, 0, image_id="same") for name in ("b.jpg", "a.jpg", "c.jpg")] + [face_row("d.jpg", 1, 1)]
    )
    leave_out_repeats(faces)
    assert faces.rows["reason"].tolist() == [None, "duplicate", "duplicate", None]
    assert faces.rows.at[2, "detail"] == "same bytes as a.jpg"


def test_the_best_of_nearly_identical_pictures_is_kept() -> None:
    grey = np.random.default_rng(0).integers(0, 255, 256).astype(np.uint8)
    noisy = np.clip(grey.astype(int) + np.random.default_rng(1).integers(-8, 8, 256), 0, 255).astype(np.uint8)
    same = face_row("a.jpg", 1, 0)["embedding"]
    rows = [
        face_row("a.jpg", 1, 0, texture=grey.tobytes(), side=60.0),
        face_row("b.jpg", 1, 0, texture=noisy.tobytes(), embedding=same, side=200.0),
        face_row("c.jpg", 1, 0, texture=(grey // 2 + 40).astype(np.uint8).tobytes(), embedding=same, side=90.0),
        face_row("d.jpg", 1, 0, embedding=same, texture=np.roll(grey, 77).tobytes()),
        # A picture of another person is not a copy, even with the same grey values.
        face_row("e.jpg", 2, 0, texture=grey.tobytes()),
    ]
    faces = make_faces(rows)
    leave_out_near_duplicates(faces, PARAMS, 0.8)
    assert faces.rows["reason"].tolist() == ["near_duplicate", None, "near_duplicate", None, None]
    assert faces.rows.at[0, "detail"] == "of b.jpg"
