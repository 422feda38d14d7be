"""Several networks vote: what they agree on is named, the rest stays open."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import load_params
from pipelines.core.paths import project_root
from pipelines.core.sections.face_networks import Expression, FaceClassifier, FaceRegressor, HeadPose
from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser, pack_folder
from pipelines.data.faces.protocols import Caption, Detection
from pipelines.data.faces.votes import ExpressionVote, FaceView, NetworkPose
from tests.pipelines.face_networks import save_face_network

BOX = np.array([20.0, 10, 60, 50], np.float32)
POINTS = np.zeros((5, 2), np.float32)
FACE = FaceView(np.full((80, 100, 3), 255, np.uint8), BOX, POINTS)
LANDMARKS = np.random.default_rng(0).uniform(0, 50, (68, 2))


def _network(folder: Path, name: str, **shares: float) -> FaceClassifier:
    """Return a network that gives every face the same probabilities."""
    bias = np.log(np.maximum(list(shares.values()), 1e-9))
    weights = np.zeros((3, len(shares)))
    file = save_face_network(folder / name, weights, bias=bias, softmax=True, classes=",".join(shares))
    return FaceClassifier(path=str(file), size=32)


def _vote(*networks: FaceClassifier, **settings: Any) -> ExpressionVote:
    return ExpressionVote(Expression(networks=networks, **settings))


def test_the_mean_decides_and_disagreement_leaves_it_open(tmp_path: Path) -> None:
    happy = _network(tmp_path, "a.onnx", happy=0.9, sad=0.1)
    unsure = _network(tmp_path, "b.onnx", sad=0.4, happy=0.6)
    angry = _network(tmp_path, "c.onnx", angry=0.95, happy=0.05)
    for networks, bound, word, confidence in (
        ((happy, unsure), 0.7, "happy", 0.75),
        ((happy, unsure), 0.8, None, 0.75),
        ((happy, angry), 0.5, None, 0.475),
    ):
        ((named, sure),) = _vote(*networks, min_confidence=bound).read([FACE])
        assert (named, sure) == (word, pytest.approx(confidence, abs=1e-5))
    bounds = {"happy": 1.0}
    assert _vote(happy, min_confidence=0.5, min_confidence_of=bounds).read([FACE])[0][0] is None
    with pytest.raises(UserError, match=r"min_confidence_of: joyful: expected neutral, happy"):
        _vote(happy, min_confidence_of={"joyful": 0.5})


def test_only_captions_without_an_expression_are_completed(tmp_path: Path) -> None:
    vote = _vote(_network(tmp_path, "a.onnx", happy=0.9, sad=0.1), min_confidence=0.5)
    given, named = vote.complete([Caption("a", "sad", source="sidecar"), Caption("b")], [FACE, FACE])
    assert (given, given.source, given.confidence) == (Caption("a", "sad"), "sidecar", None)
    assert (named, named.confidence) == (Caption("b", "happy"), pytest.approx(0.9, abs=1e-5))
    assert named.source.startswith("a.onnx ")
    assert _vote().complete([Caption("b")], [FACE]) == [Caption("b")]


def test_the_pose_is_the_mean_and_open_where_networks_differ(tmp_path: Path) -> None:
    def network(name: str, *angles: float, **convention: Any) -> FaceRegressor:
        file = save_face_network(tmp_path / name, np.zeros((3, len(angles))), bias=np.array(angles), batch=1)
        return FaceRegressor(path=str(file), size=32, **convention)

    one, two = network("1.onnx", 20, 4, 2), network("2.onnx", -30, 6, 0, angles=("-yaw", "pitch", "roll"))
    faces = [Detection(BOX, POINTS, 1.0)]
    (pose,) = NetworkPose(HeadPose(networks=(one, two))).poses([FACE.image], faces, [LANDMARKS])
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((25, 5, 1))
    assert (pose.spread, pose.word) == (pytest.approx(10), "half_right")
    (pose,) = NetworkPose(HeadPose(networks=(one, two), max_spread=9)).poses([FACE.image], faces, [LANDMARKS])
    assert (pose.open, pose.word) == (True, None)
    # What no network measures is that of the landmarks.
    only_yaw = NetworkPose(HeadPose(networks=(network("3.onnx", 40, angles=("yaw",)),)))
    (pose,) = only_yaw.poses([FACE.image], faces, [LANDMARKS])
    assert (pose.yaw, pose.spread) == (pytest.approx(40), None)
    assert np.isfinite([pose.pitch, pose.roll]).all()
    assert only_yaw.poses([], [], []) == []


def _of_sd15(shared: Path) -> ExpressionVote:
    """Return the vote of the profile sd15, with the networks of the folder `shared`."""
    section = load_params(project_root() / "profiles" / "sd15.yaml").preprocess.expression
    networks = tuple(
        network.model_copy(update={"path": str(shared / "weights" / "expression" / Path(network.path).name)})
        for network in section.networks
    )
    return ExpressionVote(section.model_copy(update={"networks": networks}))


def _right_and_named(shared: Path, rows: list[dict[str, str]]) -> tuple[float, float]:
    """Return the share of right expressions among those named, and the share of photos with a name."""
    pack = InsightFaceAnalyser(pack_folder("buffalo_real_mini", shared / "weights" / "insightface"))
    faces, labels = [], []
    for row in rows:
        photo = cv2.cvtColor(cv2.imread(str(shared / "faces_labelled" / row["file"])), cv2.COLOR_BGR2RGB)
        if found := pack.detect(photo):
            face = max(found, key=lambda one: one.area)
            faces.append(FaceView(photo, face.bbox, face.keypoints))
            labels.append(row["expression"])
    named = [(word, label) for (word, _), label in zip(_of_sd15(shared).read(faces), labels, strict=True) if word]
    return float(np.mean([word == label for word, label in named])), len(named) / len(faces)


def _labelled(shared: Path, step: int) -> list[dict[str, str]]:
    with (shared / "faces_labelled" / "labels.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["expression"] in {"neutral", "happy", "sad", "surprised"}]
    return rows[::step]


@pytest.mark.realdata
def test_what_is_named_on_photographs_is_right(shared: Path) -> None:
    right, named = _right_and_named(shared, _labelled(shared, 120))
    assert right >= 0.85
    assert named >= 0.45


@pytest.mark.realdata
@pytest.mark.nightly
def test_what_is_named_on_many_photographs_is_right(shared: Path) -> None:
    right, named = _right_and_named(shared, _labelled(shared, 4))
    assert right >= 0.85
    assert named >= 0.5
