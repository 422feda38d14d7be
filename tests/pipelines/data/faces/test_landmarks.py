"""68 landmarks: an ONNX network on photographs, FAN on random weights, and missing files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.core.sections.data import Landmarker
from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser, pack_folder
from pipelines.data.faces.landmarks import load_landmarker
from tests.pipelines.photos import slim_landmarker


@pytest.mark.realdata
def test_points_agree_with_fan_on_a_photograph(shared: Path) -> None:
    folder = shared / "photos" / "face_alignment"
    photo = cv2.cvtColor(cv2.imread(str(folder / "misc" / "aflw-test.jpg")), cv2.COLOR_BGR2RGB)
    reference = json.loads((folder / "fan_reference_aflw-test.json").read_text())["points"]
    expected = np.array(reference)[:, :2]
    face = InsightFaceAnalyser(pack_folder("buffalo_real_mini", shared / "weights" / "insightface")).detect(photo)[0]
    params = Landmarker(**slim_landmarker(shared))
    landmarker = load_landmarker(params, Path(params.path))
    points = landmarker.landmarks([photo], [face.bbox])[0]
    between_eyes = np.linalg.norm(expected[45] - expected[36])
    assert np.linalg.norm(points - expected, axis=1).mean() < 0.07 * between_eyes
    # The landmarks move with the picture.
    shifted = np.pad(photo, ((17, 0), (31, 0), (0, 0)))
    moved = landmarker.landmarks([shifted], [face.bbox + np.array([31, 17, 31, 17])])[0]
    assert np.abs(moved - points - [31, 17]).max() < 0.5


@pytest.mark.realdata
def test_a_convention_that_does_not_fit_is_refused(shared: Path) -> None:
    params = Landmarker(**slim_landmarker(shared) | {"input_size": 64})
    with pytest.raises(UserError, match=r"expected nchw \[3, 64, 64\]"):
        load_landmarker(params, Path(params.path))


def test_no_photos_give_no_points(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"preprocess\.landmarker\.path = .*gone\.onnx: no such file"):
        load_landmarker(Landmarker(kind="onnx", path=""), tmp_path / "gone.onnx")


def test_fan_runs_on_local_weights_of_its_class(tmp_path: Path) -> None:
    import torch
    from face_alignment.api import models_urls
    from face_alignment.models import FAN

    torch.manual_seed(0)
    file = tmp_path / models_urls["2DFAN-4"].rsplit("/", 1)[-1]
    torch.save(FAN(1).state_dict(), file)
    fan = load_landmarker(Landmarker(kind="fan", path=str(tmp_path)), tmp_path)
    photo = np.random.default_rng(0).integers(0, 255, (200, 160, 3), np.uint8)
    boxes = [np.array([40, 60, 120, 160.0], np.float32), np.array([20, 20, 100, 100.0], np.float32)]
    points = fan.landmarks([photo, photo], boxes)
    assert points.shape == (2, 68, 2)
    assert points.dtype == np.float32
    assert (points == fan.landmarks([photo, photo], boxes)).all()
    # Points are in FAN's input square around each box.
    assert (points[0] > [-60, -40]).all()
    assert (points[0] < [220, 260]).all()


def test_missing_or_wrong_fan_weights_are_named_and_not_downloaded(tmp_path: Path) -> None:
    params = Landmarker(kind="fan", path=str(tmp_path))
    with pytest.raises(UserError, match=r"no FAN weights; expected the file 2DFAN4-\w+\.pth\.tar"):
        load_landmarker(params, tmp_path)
    (tmp_path / "wrong.pth").write_text("nothing of the kind")
    with pytest.raises(UserError, match="not the weights of a FAN"):
        load_landmarker(params, tmp_path / "wrong.pth")
