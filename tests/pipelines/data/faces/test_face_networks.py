"""Networks of any convention: their crops, classes and angles, and files that do not fit what is written of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from model.face.face_geometry import ARCFACE_TEMPLATE
from model.face.face_prompts import EXPRESSIONS
from pipelines.core.errors import UserError
from pipelines.core.sections.face_networks import FaceClassifier, FaceNetwork, FaceRegressor
from pipelines.data.faces.face_crops import face_input, face_picture
from pipelines.data.faces.face_networks import Classifier, Regressor
from tests.pipelines.face_networks import save_face_network

BOX = np.array([20.0, 10, 60, 50], np.float32)
POINTS = ARCFACE_TEMPLATE * 0.4 + 20
# Probabilities by the mean of red, green and blue: the redder, the happier.
RED_IS_HAPPY = np.array([[0, 6.0], [0, 0], [0, 0]])


def _photo(red: int = 200) -> np.ndarray:
    photo = np.zeros((80, 100, 3), np.uint8)
    photo[..., 0] = red
    return photo


def _classifier(tmp_path: Path, **convention: Any) -> Classifier:
    softmax = convention.pop("softmax", True)
    metadata = convention.pop("metadata", None)
    file = save_face_network(tmp_path / "n.onnx", RED_IS_HAPPY, softmax=softmax, classes=metadata)
    return Classifier(FaceClassifier(path=str(file), size=32, **convention), "preprocess.expression.networks[0]")


def _read(network: Classifier, *photos: np.ndarray) -> np.ndarray:
    return network.probabilities(photos, [BOX] * len(photos), [POINTS] * len(photos))


def test_classes_come_in_the_words_and_the_order_of_the_project(tmp_path: Path) -> None:
    probabilities = _read(_classifier(tmp_path, classes=("Anger", "happiness")), _photo(255), _photo(0))
    assert probabilities.shape == (2, len(EXPRESSIONS))
    expected = 1 / (1 + np.exp(-6))
    assert probabilities[0, EXPRESSIONS.index("happy")] == pytest.approx(expected)
    assert probabilities[0, EXPRESSIONS.index("angry")] == pytest.approx(1 - expected)
    assert probabilities[1, EXPRESSIONS.index("happy")] == pytest.approx(1 - expected)
    assert probabilities[:, EXPRESSIONS.index("sad")].tolist() == [0, 0]


def test_classes_and_softmax_may_stand_in_the_file_or_not(tmp_path: Path) -> None:
    stated = _read(_classifier(tmp_path, metadata="neutral,happy"), _photo())
    logits = _read(_classifier(tmp_path, classes=("neutral", "happy"), softmax=False, values="logits"), _photo())
    assert np.allclose(stated, logits)


def test_a_class_without_a_word_takes_its_share(tmp_path: Path) -> None:
    probabilities = _read(_classifier(tmp_path, classes=("happy", "other")), _photo(255))
    assert probabilities.sum() == pytest.approx(1 / (1 + np.exp(6)))


@pytest.mark.parametrize(
    ("convention", "message"),
    [
        ({"classes": ("neutral", "contempt")}, "classes neutral, contempt.*neutral, happy, sad.*`other`"),
        ({"classes": ("happy", "joy")}, "at most once"),
        ({"classes": ("neutral", "happy", "sad")}, "2 outputs, expected one for each of 3 classes"),
        ({}, "no classes in its metadata_props.*set preprocess.expression.networks.0..classes"),
        ({"classes": ("happy", "sad"), "metadata": "sad,happy"}, "metadata_props, expected those of .*happy, sad"),
        ({"classes": ("happy", "sad"), "values": "logits"}, "probabilities already.*set values: probabilities"),
        ({"classes": ("happy", "sad"), "softmax": False}, "expected probabilities; set values: logits"),
        ({"classes": ("happy", "sad"), "output": "scores"}, "outputs values, expected one of the name scores"),
        ({"classes": ("happy", "sad"), "colour": "grey"}, r"input \[3, 32, 32\], expected nchw \[1, 32, 32\] \(grey"),
        ({"classes": ("happy", "sad"), "layout": "nhwc"}, r"input \[3, 32, 32\], expected nhwc \[32, 32, 3\]"),
    ],
)
def test_a_file_that_is_not_what_is_written_of_it_is_named(
    tmp_path: Path, convention: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=r"preprocess\.expression\.networks\[0\]\.path = .*n\.onnx: .*" + message):
        _classifier(tmp_path, **convention)


def test_another_size_and_a_fixed_batch_are_named(tmp_path: Path) -> None:
    file = save_face_network(tmp_path / "n.onnx", RED_IS_HAPPY, batch=4, softmax=True, classes="sad,happy")
    with pytest.raises(UserError, match=r"input \[3, 32, 32\], expected nchw \[3, 64, 64\] \(rgb, size 64\)"):
        Classifier(FaceClassifier(path=str(file), size=64), "key")
    with pytest.raises(UserError, match="batches of 4, expected batches of 1 or of any size"):
        Classifier(FaceClassifier(path=str(file), size=32), "key")
    with pytest.raises(UserError, match=r"key\.path = .*gone\.onnx: no such file"):
        Classifier(FaceClassifier(path=str(tmp_path / "gone.onnx"), size=32), "key")


def test_angles_have_the_signs_of_the_project_and_mirror(tmp_path: Path) -> None:
    file = save_face_network(tmp_path / "n.onnx", np.diag([10.0, 20, 30]), batch=1)
    photo = np.full((80, 100, 3), 255, np.uint8)
    angles = Regressor(FaceRegressor(path=str(file), size=32, angles=("-yaw", "none", "pitch")), "key")
    degrees = angles.degrees([photo], [BOX], [POINTS])
    assert np.allclose(degrees, [[-10, 30, np.nan]], equal_nan=True)
    # The mean colour is the same in the mirror: what changes sign there cancels out.
    mirrored = Regressor(FaceRegressor(path=str(file), size=32, mirror=True), "key")
    assert np.allclose(mirrored.degrees([photo], [BOX], [POINTS]), [[0, 20, 0]])
    assert mirrored.degrees([], [], []).shape == (0, 3)
    with pytest.raises(UserError, match="3 outputs, expected one for each of yaw, pitch"):
        Regressor(FaceRegressor(path=str(file), size=32, angles=("yaw", "pitch")), "key")


def test_a_result_does_not_depend_on_the_other_faces(tmp_path: Path) -> None:
    network = _classifier(tmp_path, classes=("sad", "happy"), mirror=True)
    photos = [_photo(red) for red in range(0, 250, 12)]
    together = _read(network, *photos)
    assert (np.concatenate([_read(network, photo) for photo in photos]) == together).all()


def test_a_box_is_cut_around_its_middle_with_the_chosen_surroundings() -> None:
    photo = np.full((40, 40, 3), 100, np.uint8)
    photo[10:30, 10:30] = 200
    network = FaceNetwork(path="", size=20)
    inner = np.array([10, 10, 30, 30.0], np.float32)
    assert (face_picture(photo, inner, POINTS, network) == 200).all()
    wide = face_picture(photo, inner, POINTS, network.model_copy(update={"crop_scale": 3.0, "size": 60}))
    assert wide.shape == (60, 60, 3)
    assert (wide[:10] == 0).all()
    assert (wide[10:20, 10:50] == 100).all()
    assert (wide[20:40, 20:40] == 200).all()
    edge = face_picture(
        photo, inner, POINTS, network.model_copy(update={"crop_scale": 3.0, "size": 60, "outside": "edge"})
    )
    assert (edge[:10] == 100).all()
    away = face_picture(photo, inner + 100, POINTS, network)
    assert away.shape == (20, 20, 3)


def test_colours_and_range_are_those_of_the_network() -> None:
    photo = np.zeros((64, 64, 3), np.uint8)
    photo[..., 0], photo[..., 2] = 250, 50
    box = np.array([0, 0, 64, 64.0], np.float32)

    def read(**convention: Any) -> np.ndarray:
        return face_input(photo, box, POINTS, FaceNetwork(path="", size=16, **convention))

    assert read(colour="bgr", mean=0, scale=1)[:, 0, 0].tolist() == [50, 0, 250]
    assert read(mean=(250, 0, 25), scale=(1, 1, 25))[:, 0, 0].tolist() == [0, 0, 1]
    grey = read(colour="grey", mean=0, scale=1)
    assert grey.shape == (1, 16, 16)
    assert (grey[0] == cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[0, 0]).all()
    assert read(layout="nhwc").shape == (16, 16, 3)


@pytest.mark.parametrize(
    "convention",
    [
        {"crop": "arcface", "crop_scale": 1.3},
        {"crop": "face", "outside": "edge"},
        {"crop": "arcface", "size": 100},
        {"colour": "grey", "mean": (1, 2, 3)},
        {"scale": 0},
        {"scale": (1, 0, 1)},
    ],
)
def test_conventions_that_contradict_themselves_are_refused(convention: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FaceNetwork(path="", **convention)
    with pytest.raises(ValidationError):
        FaceRegressor(path="", angles=("yaw", "-yaw"))
