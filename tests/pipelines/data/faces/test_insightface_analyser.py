"""A face pack: loaded or reported as missing, with outputs that do not depend on the batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser, pack_folder


def test_a_missing_pack_is_named_and_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models/absent: no such folder"):
        pack_folder("absent", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_empty_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ONNX file"):
        InsightFaceAnalyser(tmp_path)


@pytest.mark.realdata
def test_a_pack_without_one_of_its_networks_is_refused(tmp_path: Path, shared: Path) -> None:
    pack = pack_folder("buffalo_real_mini", shared / "weights" / "insightface")
    shutil.copy(pack / "det_500m.onnx", tmp_path)
    with pytest.raises(UserError, match="no recognition network"):
        InsightFaceAnalyser(tmp_path)
    (tmp_path / "det_500m.onnx").unlink()
    shutil.copy(pack / "w600k_mbf_int8.onnx", tmp_path)
    with pytest.raises(UserError, match="no detection network"):
        InsightFaceAnalyser(tmp_path)


@pytest.mark.realdata
def test_faces_are_found_upright_and_people_have_distinct_embeddings(shared: Path) -> None:
    pack = InsightFaceAnalyser(pack_folder("buffalo_real_mini", shared / "weights" / "insightface"), det_sizes=(128,))
    assert not pack.measures_pose
    files = [
        shared / "photos" / "lfw10_krasserm" / name / f"{name}_000{number}.jpg"
        for name in ("Ariel_Sharon", "Tony_Blair")
        for number in (1, 2)
    ]
    photos = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    faces = [max(pack.detect(photo), key=lambda face: face.area) for photo in photos]
    for face in faces:
        left_eye, right_eye, nose, left_mouth, right_mouth = face.keypoints
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_mouth[1] > nose[1] > left_eye[1]
        assert right_mouth[0] > left_mouth[0]
    embeddings = pack.embed(photos, [face.keypoints for face in faces])
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    likeness = embeddings @ embeddings.T
    assert min(likeness[0, 1], likeness[2, 3]) > 0.4
    assert likeness[:2, 2:].max() < 0.25
    alone = pack.embed(photos[2:3], [faces[2].keypoints])
    assert (alone[0] == embeddings[2]).all()
    assert pack.embed([], []).shape == (0, 512)
    assert pack.detect(np.full((128, 128, 3), 127, np.uint8)) == []


def test_a_folder_whose_name_is_a_pattern_is_read(project: Path, tmp_path: Path) -> None:
    shipped = project / "model/foundation/weights/insightface/models/tiny_faces"
    odd = shutil.copytree(shipped, tmp_path / "*[x]?" / "tiny_faces")
    analyser = InsightFaceAnalyser(odd, det_sizes=[96])
    # A size for which the network is read once more.
    assert analyser.quick_score(np.full((200, 200, 3), 127, np.uint8)) == 0.0
    assert analyser.detect(np.full((64, 64, 3), 127, np.uint8)) == []
