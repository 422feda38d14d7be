from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.face.face_geometry import CROP_TEMPLATE
from model.face.face_prompts import POSES
from pipelines.core.errors import UserError
from pipelines.core.params import load_params
from pipelines.core.sections.evaluation import DetectorJudge, Judges
from pipelines.evaluation.judge_loading import load_judges
from pipelines.evaluation.judges import ExpressionJudge, PoseJudge, RecogniserJudge, YuNetDetector
from pipelines.evaluation.readings import FaceReader
from pipelines.evaluation.text_judge import TextJudge


def faces(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    images = [np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((12, 12, 1))).astype(np.uint8) for _ in range(count)]
    return images, [(CROP_TEMPLATE * 96).astype(np.float32)] * count


BOX = np.array([10.0, 10.0, 80.0, 90.0], np.float32)


def test_the_recogniser_gives_unit_vectors_in_any_batch(judge_params: Judges) -> None:
    judge = RecogniserJudge(judge_params.recogniser)
    images, points = faces(70)
    embedded = judge.embed(images, [BOX] * 70, points)
    assert embedded.shape == (70, 16)
    assert np.linalg.norm(embedded, axis=1) == pytest.approx(np.ones(70), abs=1e-5)
    assert judge.embed(images[66:67], [BOX], points[:1])[0] == pytest.approx(embedded[66], abs=1e-5)
    assert judge.embed([], [], []).shape == (0, 16)


def test_one_file_serves_several_judges_which_see_the_unmasked_crop(judge_params: Judges) -> None:
    expression, pose = ExpressionJudge(judge_params.expression), PoseJudge(judge_params.yaw, judge_params.pose)
    images, points = faces(3)
    boxes = [BOX] * 3
    assert expression.read(images, boxes, points).shape == (3,)
    poses, yaw = pose.read(images, boxes, points)
    assert poses.shape == yaw.shape == (3,)
    # Here the crop is the whole picture, so its corner, which a mask would hide, must change the result.
    changed = [image.copy() for image in images]
    for image in changed:
        image[:24, :24] = 255 - image[:24, :24]
    assert not np.allclose(pose.read(changed, boxes, points)[1], yaw)


def test_without_a_classifier_the_pose_is_that_of_the_mean_yaw(judge_params: Judges) -> None:
    images, points = faces(3)
    (network,) = judge_params.yaw
    turned = network.model_copy(update={"angles": ("-yaw",)})
    poses, yaw = PoseJudge([network, turned], None).read(images, [BOX] * 3, points)
    assert yaw == pytest.approx(np.zeros(3), abs=1e-4)
    assert [POSES[pose] for pose in poses] == ["front"] * 3


def test_the_largest_face_counts_and_a_picture_without_one_is_empty(
    face_reader: Callable[[Any], FaceReader], centre_detector: type
) -> None:
    class Some(centre_detector):  # type: ignore[misc]
        def detect(self, image: np.ndarray) -> list:
            return [] if image.mean() == 0 else super().detect(image)

    reader = face_reader(Some())
    images, _ = faces(2)
    readings = reader.single([images[0], np.zeros_like(images[0]), images[1]])
    assert readings.found.tolist() == [True, False, True]
    assert readings.boxes[0] == pytest.approx([0.2, 0.2, 0.8, 0.8])
    assert not readings.embeddings[1].any()
    assert (readings.expression[1], readings.pose[1]) == (-1, -1)
    assert np.isnan(readings.yaw[1])
    faces_seen = reader.all_faces([images[0], np.zeros_like(images[0])])
    assert [faces.found.tolist() for faces in faces_seen] == [[True], []]
    assert faces_seen[0].expression.tolist() == readings.expression[:1].tolist()
    assert faces_seen[0].embeddings[0] == pytest.approx(readings.embeddings[0], abs=1e-6)
    alone = replace(reader, expression=None, pose=None).single(images)
    assert alone.found.all()


def test_text_and_pictures_meet_in_one_space(clip_folder: Path) -> None:
    judge = TextJudge(clip_folder)
    texts = judge.texts(["a photo of a person wearing a red t-shirt", "a", "a photo " * 200])
    pictures = judge.pictures(faces(2)[0])
    assert texts.shape[1] == pictures.shape[1]
    assert np.linalg.norm(texts, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert not np.allclose(texts[0], texts[1])
    assert not np.allclose(pictures[0], pictures[1])


def test_the_text_judge_sees_both_ends_of_a_wide_picture(clip_folder: Path) -> None:
    wide = [np.zeros((64, 192, 3), np.uint8) for _ in range(2)]
    wide[1][:, :40] = 255
    features = TextJudge(clip_folder).pictures(wide)
    assert not np.allclose(features[0], features[1])


def test_a_missing_judge_is_named(tmp_path: Path, judge_params: Judges) -> None:
    nowhere = str(tmp_path / "none.onnx")
    with pytest.raises(UserError, match=r"evaluate\.judges\.recogniser"):
        RecogniserJudge(judge_params.recogniser.model_copy(update={"path": nowhere}))
    (expression,) = judge_params.expression
    wrong = expression.model_copy(update={"path": judge_params.recogniser.path})
    with pytest.raises(UserError, match=r"evaluate\.judges\.expression\[0\]\.path = .*outputs embedding"):
        ExpressionJudge([wrong])
    with pytest.raises(UserError, match=r"evaluate\.judges\.clip"):
        TextJudge(tmp_path)
    with pytest.raises(UserError, match=r"evaluate\.judges\.detector\.path = .*expected the ONNX file of YuNet"):
        YuNetDetector(DetectorJudge(path=nowhere))
    with pytest.raises(UserError, match=r"evaluate\.judges\.detector\.path = .*not YuNet of size 640"):
        YuNetDetector(DetectorJudge(path=judge_params.recogniser.path))


def test_a_network_of_preprocessing_is_refused_under_any_name(project: Path, tmp_path: Path) -> None:
    import onnx

    copied = onnx.load(str(project / "model/foundation/weights/insightface/models/tiny_faces/rec.onnx"))
    copied.graph.name = "another"
    onnx.save(copied, tmp_path / "mine.onnx")
    tiny, mine = project / "profiles" / "tiny.yaml", f"evaluate.judges.recogniser.path={tmp_path / 'mine.onnx'}"
    with pytest.raises(UserError, match=r"recogniser\.path = .*weights of rec\.onnx .*insightface_name.*cannot judge"):
        load_judges(load_params(tiny, [mine]))
    load_judges(load_params(tiny))


@pytest.mark.realdata
def test_yunet_finds_the_faces_of_a_photograph(shared: Path) -> None:
    import cv2

    detector = YuNetDetector(DetectorJudge(path=str(shared / "weights/detection/yunet_n_640_640.onnx")))
    file = shared / "photos/lfw10_krasserm/Tony_Blair/Tony_Blair_0001.jpg"
    image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
    face = max(detector.detect(image), key=lambda each: each.area)
    assert face.score > 0.6
    left, right, nose, *mouth = face.keypoints
    assert left[0] < nose[0] < right[0]
    assert nose[1] < mouth[0][1]
    assert detector.detect(np.zeros((50, 80, 3), np.uint8)) == []
