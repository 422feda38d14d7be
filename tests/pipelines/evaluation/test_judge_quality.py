"""Judges are measured on real photos before they judge: perfect, useless and unmeasured ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from model.face.face_geometry import CROP_TEMPLATE
from model.face.face_prompts import EXPRESSIONS
from pipelines.core.errors import UserError
from pipelines.core.sections.evaluation import JudgeBounds
from pipelines.data.faces.protocols import Detection
from pipelines.evaluation.judge_quality import (
    JudgeQuality,
    choose_photos,
    explain,
    measure_judges,
    refuse_conditioning,
    unfit,
)
from pipelines.evaluation.photos import Photo, PhotoRecord
from pipelines.evaluation.readings import Readings

PEOPLE, EACH, SIDE = 4, 8, 64
BOX = np.array([8, 8, 56, 56], np.float32)
JUDGES = {"detector", "recogniser", "expression", "pose", "text"}


def yaw_of(number: int) -> float:
    return float(number % 9) * 10 - 40


def photo(number: int, **changes: Any) -> Photo:
    """Return photo `number`; its first pixel is the number, so that a stub judge knows which one it is given."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[0, 0] = number
    record = PhotoRecord(
        image_id=f"{number:03d}",
        identity=f"p{number % PEOPLE}",
        expression=EXPRESSIONS[number % 7],
        pose="front",
        turned=0.0,
        prompt=f"a photo of number {number % 5}",
    )
    unit = np.eye(512, dtype=np.float32)[number % PEOPLE]
    points = (CROP_TEMPLATE * SIDE).astype(np.float32)
    made = Photo(
        record,
        cv2.imencode(".png", image)[1].tobytes(),
        BOX,
        points,
        np.zeros((68, 2), np.float32),
        unit,
        yaw_of(number),
    )
    return replace(made, **changes)


PHOTOS = [photo(number) for number in range(PEOPLE * EACH)]


class Detector:
    def __init__(self, misses: int = 0, shift: float = 0.0) -> None:
        self._misses, self._shift = misses, shift

    def detect(self, image: np.ndarray) -> list[Detection]:
        points = (CROP_TEMPLATE * SIDE + self._shift).astype(np.float32)
        found = Detection(BOX, points, 0.9)
        return [] if int(image[0, 0, 0]) < self._misses else [found]


class Faces:
    """A stub of FaceReader: what it reads of photo `number` is given by functions."""

    expression = pose = True

    def __init__(self, detector: Detector | None = None, **read: Callable[[int], Any]) -> None:
        self._detector = detector or Detector()
        self._read = {
            "embeddings": lambda number: np.eye(16)[number % PEOPLE],
            "expression": lambda number: number % 7,
            "yaw": lambda number: yaw_of(number) + 3.0,
            **read,
        }

    def largest(self, images: Any) -> list[Detection | None]:
        return [next(iter(self._detector.detect(image)), None) for image in images]

    def read(self, images: Any, faces: Any) -> Readings:
        numbers = [int(image[0, 0, 0]) for image in images]
        none = np.zeros(len(numbers))
        values = {name: np.array([read(number) for number in numbers]) for name, read in self._read.items()}
        values["embeddings"] = values["embeddings"].reshape(len(numbers), -1 if numbers else 16)
        return Readings(found=none == 0, boxes=none, pose=none + 2, **values)


class Text:
    """A stub of TextJudge: a picture's vector is that of its own prompt, or the same for all."""

    def __init__(self, useless: bool = False) -> None:
        self._useless = useless

    def pictures(self, images: Any) -> np.ndarray:
        return np.stack([np.eye(5)[0 if self._useless else int(image[0, 0, 0]) % 5] for image in images])

    def texts(self, texts: Any) -> np.ndarray:
        return np.stack([np.eye(5)[int(text[-1])] for text in texts])


def measured(
    faces: Any = None, text: Any = None, photos: list[Photo] | None = None, **bounds: float
) -> dict[str, JudgeQuality]:
    shown = PHOTOS if photos is None else photos
    images = [each.image for each in shown]
    return measure_judges(faces or Faces(), text or Text(), shown, images, JudgeBounds(**bounds))


def test_judges_that_read_what_is_there_can_judge() -> None:
    found = measured()
    assert set(found) == JUDGES
    assert unfit(found) == {}
    assert found["detector"].figures == {"photos": 32, "faces_found": 1.0}
    assert found["recogniser"].figures == {"photos": 32, "same_pairs": 112, "other_pairs": 384, "auc": 1.0}
    assert found["expression"].figures["kappa"] == 1.0
    assert found["expression"].figures["expressions"] == 7
    assert found["pose"].figures["yaw_error"] == pytest.approx(3.0)
    assert found["pose"].figures["pose_agreement"] == 1.0
    assert found["text"].figures["own_over_other"] == 1.0
    assert found["text"].plain() == {"photos": 32, "prompts": 5, "own_over_other": 1.0, "reason": None}


def test_true_accepts_are_counted_where_there_are_pairs_enough() -> None:
    many = [
        photo(number % 250, record=replace(photo(number).record, identity=f"p{number % 40}")) for number in range(80)
    ]
    faces = Faces(embeddings=lambda number: np.eye(64)[number % 40])
    figures = measured(faces, photos=many)["recogniser"].figures
    assert figures["true_accepts_at_0.01"] == 1.0
    assert "true_accepts_at_0.001" not in figures, "3,120 pairs of different people are too few"


@pytest.mark.parametrize(
    ("judge", "faces", "text", "reason"),
    [
        ("detector", Faces(Detector(misses=8)), None, r"faces_found 0\.750 < 0\.9"),
        ("detector", Faces(Detector(shift=20.0)), None, r"faces_found 0\.000 < 0\.9"),
        ("recogniser", Faces(embeddings=lambda _: np.ones(16) / 4), None, r"auc 0\.500 < 0\.9"),
        ("expression", Faces(expression=lambda _: 0), None, r"kappa 0\.000 < 0\.4"),
        ("pose", Faces(yaw=lambda number: -yaw_of(number)), None, r"yaw_correlation -1\.000 < 0\.85 and yaw_error"),
        ("pose", Faces(yaw=lambda _: 0.0), None, "does not vary"),
        ("text", None, Text(useless=True), r"own_over_other 0\.5\d\d < 0\.7"),
    ],
)
def test_a_judge_below_its_bound_cannot_judge(judge: str, faces: Any, text: Any, reason: str) -> None:
    found = measured(faces, text)[judge].reason
    assert found is not None
    assert re.search(reason, found), found


def test_too_few_photos_are_no_pass() -> None:
    few = measured(photos=PHOTOS[:11])
    assert few["detector"].reason == "11 photos or pairs to measure it on, expected 12"
    assert set(unfit(few)) == JUDGES
    assert set(unfit(measured(photos=[]))) == JUDGES
    alone = [photo(number, record=replace(photo(number).record, identity="one")) for number in range(20)]
    assert "only one person" in str(measured(photos=alone)["recogniser"].reason)
    unlabelled = [photo(number, record=replace(photo(number).record, expression="", prompt="")) for number in range(20)]
    silent = measured(photos=unlabelled)
    assert "fewer than two expressions" in str(silent["expression"].reason)
    assert "fewer than two different prompts" in str(silent["text"].reason)
    assert silent["recogniser"].reason is None


def test_the_reason_says_where_the_autoencoder_is_the_cause() -> None:
    bad, good = measured(Faces(expression=lambda _: 0)), measured()
    assert str(explain(bad, good)["expression"].reason).endswith("it can judge the photos before the autoencoder")
    assert explain(bad, bad)["expression"] == bad["expression"]
    assert explain(good, good) == good


def test_the_recogniser_that_conditions_is_refused_by_what_it_computes() -> None:
    shown = np.zeros(len(PHOTOS))
    same = np.stack([each.embedding for each in PHOTOS])
    noisy = same + np.random.default_rng(0).normal(size=same.shape) * 0.02
    readings = Readings(shown, shown, noisy / np.linalg.norm(noisy, axis=1, keepdims=True), shown, shown, shown)
    with pytest.raises(UserError, match=r"judges\.recogniser = j\.onnx: .*mean cosine 0\.9.*another training"):
        refuse_conditioning(readings, PHOTOS, "j.onnx")
    other = np.random.default_rng(1).permutation(same.T).T
    refuse_conditioning(replace(readings, embeddings=other), PHOTOS, "j.onnx")
    refuse_conditioning(replace(readings, embeddings=same[:, :128]), PHOTOS, "j.onnx")


def test_photos_are_chosen_from_all_people_in_turn() -> None:
    mixed = {each.record.image_id: each for each in reversed(PHOTOS)}
    assert [each.record.image_id for each in choose_photos(mixed, 6)] == ["000", "001", "002", "003", "004", "005"]
    assert len(choose_photos(mixed, 99)) == len(PHOTOS)
    assert choose_photos({}, 5) == []
