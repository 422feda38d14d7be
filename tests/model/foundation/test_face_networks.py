"""The small face networks train and export, and the shipped ones work on unseen people in the pipeline."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import onnxruntime
import pytest

from model.face.face_prompts import EXPRESSIONS, POSES
from model.foundation import detector, landmarks
from model.foundation.augment import degraded, resampled
from model.foundation.face_networks import FILES, PACK, train_face_network
from model.foundation.manifest import WEIGHTS
from model.foundation.people import People, PhotoSpec, RenderedPhoto
from model.foundation.recogniser import aligned, verification
from model.foundation.render import render_people
from pipelines.core.params import load_params
from pipelines.core.sections.data import Landmarker
from pipelines.core.sections.face_networks import FaceNetwork
from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser
from pipelines.data.faces.landmarks import OnnxLandmarker
from pipelines.data.synthetic.foundation_people import draw
from pipelines.evaluation.judges import ExpressionJudge, PoseJudge, RecogniserJudge

# Numbers of people that no training set contains.
FIRST_UNSEEN = 90_000
SHAPES = {
    "landmarks": (64, [136]),
    "recogniser": (112, [512]),
    "judge": (112, [256]),
    "expression_pose": (112, [7, 5, 1]),
}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    folder = tmp_path_factory.mktemp("faces")
    return render_people(folder / "people", draw, people=20, photos=2, size=64, workers=1, groups=0.0)


@pytest.fixture(scope="module")
def unseen() -> list[tuple[int, str, str, RenderedPhoto]]:
    """Four photos of ten people each: (person, expression, pose, picture)."""
    rng = np.random.default_rng(5)
    motions = [(expression, pose) for expression in EXPRESSIONS for pose in POSES]
    drawn = []
    for person in range(FIRST_UNSEEN, FIRST_UNSEEN + 10):
        for photo, motion in enumerate(rng.choice(len(motions), 4, replace=False)):
            expression, pose = motions[motion]
            drawn.append((person, expression, pose, draw(PhotoSpec(1, photo, (person,), (expression,), (pose,), 128))))
    return drawn


@pytest.mark.parametrize("name", SHAPES)
def test_a_network_trains_and_exports_any_number_of_rows(name, people, tmp_path):
    figures = train_face_network(name, people, tmp_path / "state", tmp_path, steps=2, seed=0, batch=4)
    # Among so few photos there may be no frontal face.
    assert all(np.isfinite(value) for key, value in figures.items() if "front" not in key)
    session = onnxruntime.InferenceSession(str(tmp_path / FILES[name]), providers=["CPUExecutionProvider"])
    side, widths = SHAPES[name]
    assert session.get_inputs()[0].name == "input"
    for rows in (1, 3):
        answers = session.run(None, {"input": np.zeros((rows, 3, side, side), np.float32)})
        assert [answer.shape for answer in answers] == [(rows, width) for width in widths]
    if name == "judge":
        assert np.linalg.norm(answers[0], axis=1) == pytest.approx(1, abs=1e-3)


def test_training_depends_on_the_seed_alone(people, tmp_path):
    for folder, seed in (("one", 3), ("two", 3), ("other", 4)):
        train_face_network("landmarks", people, tmp_path / folder, tmp_path / folder, steps=2, seed=seed, batch=4)
    one, two, other = ((tmp_path / folder / FILES["landmarks"]).read_bytes() for folder in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_the_aligned_face_is_that_of_insightface(unseen):
    from insightface.utils.face_align import norm_crop

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for _, _, _, drawn in unseen[:3]:
            wanted = norm_crop(drawn.image, drawn.keypoints[0])
            assert np.abs(aligned(drawn.image, drawn.keypoints[0]).astype(int) - wanted).max() <= 2


def test_landmarks_move_with_their_square():
    image = np.zeros((128, 128, 3), np.uint8)
    points = np.array([[40, 50], [80, 50], [60, 90]])
    for x, y in points:
        image[y - 1 : y + 1, x - 1 : x + 1] = 255
    box = np.array([34.0, 40.0, 86.0, 96.0])
    for seed in range(4):
        square, shares = landmarks.square(image, box, points.astype(np.float32), np.random.default_rng(seed))
        for share in shares:
            x, y = share * landmarks.SIZE - 0.5
            near = square[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3, 0].astype(float)
            ys, xs = np.mgrid[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3]
            assert (near * xs).sum() / near.sum() == pytest.approx(x, abs=0.25)
            assert (near * ys).sum() / near.sum() == pytest.approx(y, abs=0.25)


def test_augmentation_keeps_the_shape_and_depends_on_the_generator_alone(unseen):
    image = unseen[0][3].image
    for seed in range(12):
        one, two = (degraded(image, np.random.default_rng(seed)) for _ in range(2))
        assert one.shape == image.shape
        assert one.dtype == np.uint8
        assert np.array_equal(one, two)


def test_verification_compares_pairs():
    embeddings = np.eye(3)[[0, 0, 1, 1]]
    assert verification(embeddings, np.array([0, 0, 1, 1])) == {"auc": 1.0, "same": 1.0, "different": 0.0}
    assert verification(embeddings, np.array([0, 1, 0, 1]))["auc"] < 0.5


def test_shipped_detector_finds_unseen_people(unseen):
    analyser = InsightFaceAnalyser(WEIGHTS / PACK, det_sizes=(128,))
    for side in (128, 64):
        found = 0
        for _, _, _, drawn in unseen:
            image = cv2.resize(drawn.image, (side, side), interpolation=cv2.INTER_AREA)
            faces = analyser.detect(image)
            scaled = drawn.boxes[0] * side / 128
            found += bool(faces) and detector._iou(faces[0].bbox, scaled) > 0.5
        assert found >= 39, f"{found} of 40 found at {side} px"


@pytest.mark.parametrize("which", ["recogniser", "judge"])
def test_shipped_recognisers_distinguish_unseen_people(which, unseen):
    images = [resampled(drawn.image, 64) for *_, drawn in unseen]
    points = [drawn.keypoints[0] for *_, drawn in unseen]
    if which == "recogniser":
        found = InsightFaceAnalyser(WEIGHTS / PACK).embed(images, points)
    else:
        judge = RecogniserJudge(FaceNetwork(path=str(WEIGHTS / FILES["judge"]), crop="arcface"))
        found = judge.embed(images, [drawn.boxes[0] for *_, drawn in unseen], points)
    figures = verification(found, np.array([person for person, *_ in unseen]))
    assert figures["auc"] >= 0.98
    assert figures["same"] > figures["different"] + 0.35


def test_shipped_landmarker_is_accurate_on_unseen_people(unseen):
    landmarker = OnnxLandmarker(WEIGHTS / FILES["landmarks"], Landmarker(kind="onnx", path=""))
    boxes = [drawn.boxes[0] for *_, drawn in unseen]
    found = landmarker.landmarks([drawn.image for *_, drawn in unseen], boxes)
    true = np.stack([drawn.landmarks[0] for *_, drawn in unseen])
    scale = np.sqrt([(box[2] - box[0]) * (box[3] - box[1]) for box in boxes])
    assert (np.linalg.norm(found - true, axis=2).mean(1) / scale).mean() <= 0.03


def test_shipped_judge_reads_expression_and_pose_of_unseen_people(unseen, project):
    judges = load_params(project / "profiles" / "tiny.yaml").evaluate.judges
    assert {network.path.split("weights/")[1] for network in (*judges.expression, *judges.yaw, judges.pose)} == {
        FILES["expression_pose"]
    }
    expressions, poses = ExpressionJudge(judges.expression), PoseJudge(judges.yaw, judges.pose)
    for side in (128, 64):
        images = [resampled(drawn.image, side) for *_, drawn in unseen]
        faces = images, [drawn.boxes[0] for *_, drawn in unseen], [drawn.keypoints[0] for *_, drawn in unseen]
        read_expression, (read_pose, read_yaw) = expressions.read(*faces), poses.read(*faces)
        expression = np.array([EXPRESSIONS.index(name) for _, name, _, _ in unseen])
        pose = np.array([POSES.index(name) for _, _, name, _ in unseen])
        yaw = np.array([drawn.angles[0, 0] for *_, drawn in unseen])
        assert (read_expression == expression).mean() >= 0.85
        assert (read_pose == pose).mean() >= 0.95
        assert np.abs(read_yaw - yaw).mean() <= 6


def test_shipped_face_networks_are_small():
    assert sum((WEIGHTS / place).stat().st_size for place in FILES.values()) <= 9_000_000
