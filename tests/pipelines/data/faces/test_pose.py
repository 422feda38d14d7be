"""Head pose from landmarks: signs, accuracy on drawn faces with true angles and on photographs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.core.sections.data import Landmarker
from pipelines.data.faces.insightface_analyser import pose_of_insightface
from pipelines.data.faces.landmarks import load_landmarker
from pipelines.data.faces.pose import pose_of_landmarks
from pipelines.data.synthetic.dataset import person_scenes
from pipelines.data.synthetic.draw import truth
from pipelines.data.synthetic.person import Person
from tests.pipelines.photos import slim_landmarker


def test_drawn_faces_are_measured_within_a_few_degrees() -> None:
    true, measured = [], []
    for index in range(6):
        person = Person.sample("pose-test", 3, index)
        for scene in person_scenes(3, index):
            fact = truth(person, scene, 256)
            pose = pose_of_landmarks(fact.landmarks)
            true.append((fact.yaw, fact.pitch, fact.roll))
            measured.append((pose.yaw, pose.pitch, pose.roll))
    facts, got = np.array(true), np.array(measured)
    error = np.abs(got - facts).mean(0)
    assert error[0] < 4
    assert error[1] < 7
    assert error[2] < 4
    assert np.corrcoef(facts[:, 0], got[:, 0])[0, 1] > 0.99
    assert np.polyfit(facts[:, 0], got[:, 0], 1)[0] == pytest.approx(1, abs=0.1)
    assert np.polyfit(facts[:, 1], got[:, 1], 1)[0] > 0.7
    assert np.polyfit(facts[:, 2], got[:, 2], 1)[0] == pytest.approx(1, abs=0.1)


def test_pose_does_not_depend_on_scale_or_place_and_mirrors_with_the_face() -> None:
    scene = person_scenes(3, 0)[4]
    points = truth(Person.sample("pose-test", 3, 0), scene, 256).landmarks
    pose = pose_of_landmarks(points)
    moved = pose_of_landmarks(points * 7 + [900, -40])
    assert (moved.yaw, moved.pitch, moved.roll) == pytest.approx((pose.yaw, pose.pitch, pose.roll), abs=0.05)
    swapped = [16, *range(15, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    swapped += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55]
    swapped += [64, 63, 62, 61, 60, 67, 66, 65]
    mirrored = pose_of_landmarks((points * [-1, 1])[swapped])
    assert (mirrored.yaw, mirrored.roll) == pytest.approx((-pose.yaw, -pose.roll), abs=1e-3)


def test_the_three_dimensional_landmarks_of_a_pack_mean_the_same_angles() -> None:
    from insightface.data import get_object
    from insightface.utils.transform import P2sRt, estimate_affine_matrix_3d23d, matrix2angle

    from pipelines.data.synthetic.camera import Camera

    shape = get_object("meanshape_68.pkl")
    for yaw, pitch, roll in ((30, 0, 0), (0, 20, 0), (0, 0, 15), (25, -10, 8)):
        rotated = shape @ Camera.facing(yaw, pitch, roll, 1, (0, 0)).rotation.T
        _, rotation, _ = P2sRt(estimate_affine_matrix_3d23d(shape, rotated))
        pose = pose_of_insightface(*matrix2angle(rotation))
        assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((yaw, pitch, roll), abs=0.01)


@pytest.mark.realdata
def test_photographs_agree_with_an_independent_network(shared: Path) -> None:
    from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser, pack_folder
    from pipelines.data.faces.networks import open_network

    detector = InsightFaceAnalyser(pack_folder("buffalo_real_mini", shared / "weights" / "insightface"))
    params = Landmarker(**slim_landmarker(shared))
    landmarker = load_landmarker(params, Path(params.path))
    networks = [open_network(file, "test") for file in sorted((shared / "weights" / "headpose").glob("*.onnx"))]
    files = sorted((shared / "photos" / "lfw10_krasserm").glob("*/*_0001.jpg"))
    files += sorted((shared / "photos" / "lfw10_krasserm").glob("*/*_0002.jpg"))
    ours, theirs = [], []
    for file in files:
        photo = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        for image in (photo, np.ascontiguousarray(photo[:, ::-1])):
            face = max(detector.detect(image), key=lambda found: found.area)
            pose = pose_of_landmarks(landmarker.landmarks([image], [face.bbox])[0])
            ours.append((pose.yaw, pose.pitch, pose.roll))
            theirs.append(_fsa_net(networks, image, face.bbox))
    mine, other = np.array(ours), np.array(theirs)
    assert np.abs(mine - other).mean(0) == pytest.approx([0, 0, 0], abs=8)
    assert np.corrcoef(mine[:, 0], other[:, 0])[0, 1] > 0.9
    assert np.corrcoef(mine[:, 2], other[:, 2])[0, 1] > 0.8


def _fsa_net(networks: list, image: np.ndarray, box: np.ndarray) -> tuple[float, float, float]:
    side = float(max(box[2] - box[0], box[3] - box[1])) * 1.3
    zoom = 64 / side
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    matrix = np.array([[zoom, 0, 32 - x * zoom], [0, zoom, 32 - y * zoom]])
    crop = cv2.warpAffine(image, matrix, (64, 64), borderMode=cv2.BORDER_REPLICATE)[..., ::-1]
    entry = ((crop.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None]
    angles = np.mean(
        [net.run(None, {net.get_inputs()[0].name: np.ascontiguousarray(entry)})[0][0] for net in networks], 0
    )
    return -float(angles[0]), float(angles[1]), float(angles[2])  # its yaw is positive to the left
