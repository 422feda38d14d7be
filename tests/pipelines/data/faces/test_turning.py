"""A photo that is stored sideways or upside down is turned upright, or rejected; an upright one is left alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.core.params import load_params
from pipelines.core.row_schemas import REASONS
from pipelines.data.faces.analysis import Analyser, load_analyser
from pipelines.data.faces.protocols import Detection
from pipelines.data.faces.turning import find_upright, lean, turn_clockwise
from tests.pipelines.photos import encoded, real_networks

SURE = 0.82


class OneFaceDetector:
    """Detects one face in pictures of 128 x 128, whose score depends on how the mark in a corner lies."""

    def __init__(self, scores: dict[str, float], leaning: float = 0.0) -> None:
        self._scores = scores
        self._leaning = np.radians(leaning)
        self.quick = self.full = 0

    def detect(self, image: np.ndarray) -> list[Detection]:
        self.full += 1
        score = self._score(image)
        up = np.array([np.sin(self._leaning), -np.cos(self._leaning)]) * 15
        right = np.array([-up[1], up[0]])
        points = np.array([64, 64]) + np.array([up - right, up + right, [0, 0], -up - right, -up + right])
        box = np.array([34, 34, 94, 94], np.float32)
        return [Detection(box, points.astype(np.float32), score)] if score >= 0.5 else []

    def quick_score(self, image: np.ndarray) -> float:
        self.quick += 1
        return self._score(image)

    def _score(self, image: np.ndarray) -> float:
        half = image.shape[0] // 2
        corners = {"up": image[:half, :half], "right": image[:half, half:], "down": image[half:, half:]}
        brightest = max({**corners, "left": image[half:, :half]}.items(), key=lambda item: float(item[1].mean()))
        return self._scores.get(brightest[0], 0.0)


class NamedRecogniser:
    """Gives every call's pictures the embeddings of the same person, or of different ones."""

    def __init__(self, same: bool) -> None:
        self._same = same

    def embed(self, images: Sequence[np.ndarray], keypoints: Sequence[np.ndarray]) -> np.ndarray:
        return np.eye(512, dtype=np.float32)[[0] * len(images) if self._same else list(range(len(images)))]


def _marked() -> np.ndarray:
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[:64, :64] = 255
    return picture


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_photo_is_turned_to_the_best_score(degrees: int) -> None:
    detector = OneFaceDetector({"up": 0.9, "right": 0.7, "down": 0.6, "left": 0.7})
    upright = find_upright(turn_clockwise(_marked(), -degrees % 360), detector, NamedRecogniser(True), SURE, 0.5)
    assert upright.turned == degrees
    assert (upright.image == _marked()).all()
    assert (detector.quick, detector.full) == ((3, 2) if degrees else (0, 1))


def test_just_below_the_sure_score_only_upside_down_is_tried() -> None:
    detector = OneFaceDetector({"up": SURE - 0.01, "down": 0.6})
    assert find_upright(_marked(), detector, NamedRecogniser(True), SURE, 0.5).turned == 0
    assert (detector.quick, detector.full) == (1, 1)


def test_a_sure_face_that_leans_is_tried_and_no_score_but_zero_is_sure() -> None:
    detector = OneFaceDetector({"up": 0.85, "right": 0.95}, leaning=80)
    turned = find_upright(_marked(), detector, NamedRecogniser(True), SURE, 0.5)
    assert turned.turned == 90
    assert lean(turned.faces[0]) == pytest.approx(80, abs=0.1)
    off = OneFaceDetector({"up": 0.5, "right": 0.95})
    assert find_upright(_marked(), off, NamedRecogniser(True), 0.0, 0.5).turned == 0
    assert off.quick == 0


def test_two_equal_turns_are_decided_only_where_the_recogniser_agrees() -> None:
    scores = {"up": 0.70, "down": 0.72}
    assert find_upright(_marked(), OneFaceDetector(scores), NamedRecogniser(True), SURE, 0.5).turned == 180
    assert find_upright(_marked(), OneFaceDetector(scores), NamedRecogniser(False), SURE, 0.5).turned is None


def test_a_face_that_is_found_in_another_turn_only() -> None:
    assert find_upright(_marked(), OneFaceDetector({"left": 0.9}), NamedRecogniser(True), SURE, 0.5).turned == 270
    none = find_upright(_marked(), OneFaceDetector({"left": 0.55}), NamedRecogniser(True), SURE, 0.5)
    assert (none.turned, none.faces) == (0, [])


@pytest.fixture(scope="module")
def analyser(shared: Path, project: Path) -> Analyser:
    return load_analyser(load_params(project / "profiles" / "tiny.yaml", real_networks(shared)).preprocess)


def _stored(file: Path, degrees: int) -> bytes:
    picture = Image.open(io.BytesIO(file.read_bytes())).convert("RGB")
    return encoded(picture.rotate(degrees, expand=True), "PNG", compress_level=1)


@pytest.mark.realdata
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_the_same_rows_as_from_the_upright_photo(analyser: Analyser, shared: Path, degrees: int) -> None:
    files = sorted((shared / "photos" / "lfw10_krasserm").glob("*/*_0003.jpg"))
    upright = analyser.analyse([_stored(file, 0) for file in files])
    stored = analyser.analyse([_stored(file, degrees) for file in files])
    assert [record.status for record in upright] == ["ok"] * 10
    for one, other in zip(upright, stored, strict=True):
        assert (one.turned, other.turned) == (0, degrees)
        assert other.image == one.image
        assert (other.embedding == one.embedding).all()


@pytest.mark.realdata
def test_forty_photos_in_three_turns(analyser: Analyser, shared: Path) -> None:
    """None is accepted as another person, at most 5 % of the upright ones are rejected for it."""
    with (shared / "photos" / "MANIFEST.csv").open(encoding="utf-8") as handle:
        files = [shared / "photos" / row["file"] for row in csv.DictReader(handle) if row["identity"]]
    files = sorted(files)[1::2][:40]
    others, rejected = [], []
    for file in files:
        upright, *stored = analyser.analyse([_stored(file, degrees) for degrees in (0, 90, 180, 270)])
        if upright.embedding is None:
            rejected += [file.name] if upright.reason == "turned" else []
            continue
        found = [record for record in stored if record.embedding is not None]
        others += [file.name for record in found if float(record.embedding @ upright.embedding) < 0.28]
    assert others == []
    assert len(rejected) <= 2, rejected


def test_the_reason_is_described() -> None:
    assert "turn" in REASONS["turned"]
