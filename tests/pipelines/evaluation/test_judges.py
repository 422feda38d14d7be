from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.face.face_geometry import CROP_TEMPLATE
from pipelines.core.errors import UserError
from pipelines.evaluation.judges import ExpressionPoseJudge, RecogniserJudge
from pipelines.evaluation.readings import FaceReader
from pipelines.evaluation.text_judge import TextJudge


def faces(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    images = [np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((12, 12, 1))).astype(np.uint8) for _ in range(count)]
    return images, [(CROP_TEMPLATE * 96).astype(np.float32)] * count


def test_the_recogniser_gives_unit_vectors_in_any_batch(judge_files: dict[str, Path]) -> None:
    judge = RecogniserJudge(judge_files["recogniser"], size=112, mean=127.5, scale=127.5)
    images, points = faces(70)
    embedded = judge.embed(images, points)
    assert embedded.shape == (70, 16)
    assert np.linalg.norm(embedded, axis=1) == pytest.approx(np.ones(70), abs=1e-5)
    assert judge.embed(images[66:67], points[:1])[0] == pytest.approx(embedded[66], abs=1e-5)
    assert judge.embed([], []).shape == (0, 16)


def test_the_expression_judge_sees_the_unmasked_crop(judge_files: dict[str, Path]) -> None:
    judge = ExpressionPoseJudge(judge_files["expression_pose"])
    images, points = faces(3)
    motion = judge.read(images, points)
    assert motion.expression.shape == motion.pose.shape == motion.yaw.shape == (3,)
    # Here the crop is the whole picture, so its corner, which a mask would hide, must change the result.
    changed = [image.copy() for image in images]
    for image in changed:
        image[:24, :24] = 255 - image[:24, :24]
    assert not np.allclose(judge.read(changed, points).yaw, motion.yaw)


def test_the_largest_face_counts_and_a_picture_without_one_is_empty(
    judge_files: dict[str, Path], centre_detector: type
) -> None:
    class Some(centre_detector):  # type: ignore[misc]
        def detect(self, image: np.ndarray) -> list:
            return [] if image.mean() == 0 else super().detect(image)

    recogniser = RecogniserJudge(judge_files["recogniser"], size=112, mean=127.5, scale=127.5)
    face_reader = FaceReader(Some(), recogniser, ExpressionPoseJudge(judge_files["expression_pose"]))
    images, _ = faces(2)
    readings = face_reader.single([images[0], np.zeros_like(images[0]), images[1]])
    assert readings.found.tolist() == [True, False, True]
    assert readings.boxes[0] == pytest.approx([0.2, 0.2, 0.8, 0.8])
    assert not readings.embeddings[1].any()
    assert (readings.expression[1], readings.pose[1]) == (-1, -1)
    assert np.isnan(readings.yaw[1])
    faces_seen = face_reader.all_faces([images[0], np.zeros_like(images[0])])
    assert [len(embeddings) for embeddings, _ in faces_seen] == [1, 0]


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


def test_a_missing_judge_is_named(tmp_path: Path, judge_files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"evaluate\.judges\.recogniser"):
        RecogniserJudge(tmp_path / "none.onnx", size=112, mean=127.5, scale=127.5)
    with pytest.raises(UserError, match="expected expression, pose and yaw"):
        ExpressionPoseJudge(judge_files["recogniser"])
    with pytest.raises(UserError, match=r"evaluate\.judges\.clip"):
        TextJudge(tmp_path)
