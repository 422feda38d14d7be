"""The judges of faces: ONNX networks that have no part in conditioning the model, each with a crop of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.face.face_prompts import POSES, pose_of_yaw
from pipelines.core.sections.evaluation import DetectorJudge
from pipelines.core.sections.face_networks import FaceClassifier, FaceNetwork, FaceRegressor
from pipelines.data.faces.face_networks import ANGLES, Classifier, FaceReader, Regressor
from pipelines.data.faces.protocols import Detection

_SECTION = "evaluate.judges"
_YAW = ANGLES.index("yaw")
Arrays = Sequence[np.ndarray]


class RecogniserJudge:
    """Identity embeddings."""

    def __init__(self, params: FaceNetwork) -> None:
        self._network = FaceReader(params, f"{_SECTION}.recogniser")

    def embed(self, images: Arrays, boxes: Arrays, keypoints: Arrays) -> np.ndarray:
        """Return unit-norm embeddings (N, d) float32 of N pictures (H, W, 3) uint8 RGB; faces as in `Classifier`."""
        features, mirrored = self._network.values(images, boxes, keypoints)
        features = features if mirrored is None else features + mirrored
        return (features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)).astype(np.float32)


class ExpressionJudge:
    """Seven expressions: the likeliest by the mean of the networks."""

    def __init__(self, networks: Sequence[FaceClassifier]) -> None:
        self._networks = [
            Classifier(network, f"{_SECTION}.expression[{number}]") for number, network in enumerate(networks)
        ]

    def read(self, images: Arrays, boxes: Arrays, keypoints: Arrays) -> np.ndarray:
        """Return indices (N,) into EXPRESSIONS."""
        return self.probabilities(images, boxes, keypoints).argmax(1)

    def probabilities(self, images: Arrays, boxes: Arrays, keypoints: Arrays) -> np.ndarray:
        """Return the mean probabilities (N, 7) of the networks, in the order of EXPRESSIONS."""
        mean: np.ndarray = np.mean([one.probabilities(images, boxes, keypoints) for one in self._networks], axis=0)
        return mean


class PoseJudge:
    """Yaw, the mean of the networks, and five poses: those of the yaw, or those that a classifier reads."""

    def __init__(self, networks: Sequence[FaceRegressor], classifier: FaceClassifier | None) -> None:
        self._networks = [Regressor(network, f"{_SECTION}.yaw[{number}]") for number, network in enumerate(networks)]
        self._classifier = None if classifier is None else Classifier(classifier, f"{_SECTION}.pose", POSES)

    def read(self, images: Arrays, boxes: Arrays, keypoints: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Return indices (N,) into POSES and yaw (N,) in degrees."""
        faces = images, boxes, keypoints
        yaw: np.ndarray = np.mean([network.degrees(*faces)[:, _YAW] for network in self._networks], axis=0)
        if self._classifier is not None:
            return self._classifier.probabilities(*faces).argmax(1), yaw
        return np.array([POSES.index(pose_of_yaw(angle)) for angle in yaw], int), yaw


class YuNetDetector:
    """YuNet, a detector that no face pack has; every picture fills its square input, with black beside it."""

    def __init__(self, params: DetectorJudge) -> None:
        """Open the network; raise UserError where the file is missing or is another network."""
        import cv2

        from pipelines.core.errors import UserError
        from pipelines.core.paths import resolve

        file, side = resolve(params.path), params.size
        if not file.is_file():
            raise UserError(f"{_SECTION}.detector.path = {params.path}: no such file; expected the ONNX file of YuNet")
        try:
            self._network = cv2.FaceDetectorYN.create(str(file), "", (side, side), params.threshold)
            self._side = side
            self.detect(np.zeros((side, side, 3), np.uint8))
        except cv2.error as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{_SECTION}.detector.path = {params.path}: not YuNet of size {side}: {reason}") from None

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Return the faces of a picture (H, W, 3) uint8 RGB, best score first; empty where there is none."""
        import cv2

        factor = self._side / max(image.shape[:2])
        height, width = (max(1, round(length * factor)) for length in image.shape[:2])
        square = np.zeros((self._side, self._side, 3), np.uint8)
        square[:height, :width] = cv2.resize(image, (width, height))[..., ::-1]
        _, rows = self._network.detect(square)
        found = [
            Detection(
                np.array([x, y, x + w, y + h], np.float32) / factor,
                np.asarray(points, np.float32).reshape(5, 2) / factor,
                float(score),
            )
            for x, y, w, h, *points, score in ([] if rows is None else rows)
        ]
        return sorted(found, key=lambda face: face.score, reverse=True)

    def quick_score(self, image: np.ndarray) -> float:
        """Return the best score in a picture; 0 where there is no face."""
        return max((face.score for face in self.detect(image)), default=0.0)
