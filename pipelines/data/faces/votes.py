"""Name the expression and measure the pose of faces by several networks; where they are not sure, both stay open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model.face.face_prompts import EXPRESSIONS
from pipelines.core.errors import UserError
from pipelines.core.paths import resolve
from pipelines.core.sections.data import Preprocess
from pipelines.core.sections.face_networks import Expression, HeadPose
from pipelines.data.faces.face_networks import ANGLES, Classifier, Regressor
from pipelines.data.faces.pose import pose_of_landmarks
from pipelines.data.faces.protocols import Caption, Detection, Pose


@dataclass(frozen=True)
class FaceView:
    """A face in a photo: `image` (H, W, 3) uint8 RGB, its box `bbox` (4,) and `keypoints` (5, 2) in pixels of it."""

    image: np.ndarray
    bbox: np.ndarray
    keypoints: np.ndarray


class ExpressionVote:
    """The mean of the probabilities of several classifiers: where they disagree, no expression has a high one."""

    def __init__(self, params: Expression) -> None:
        """Open the networks; raise UserError naming the first that is missing or is another network."""
        if unknown := [word for word in params.min_confidence_of if word not in EXPRESSIONS]:
            raise UserError(
                f"preprocess.expression.min_confidence_of: {', '.join(unknown)}: expected {', '.join(EXPRESSIONS)}"
            )
        self._least = [params.min_confidence_of.get(word, params.min_confidence) for word in EXPRESSIONS]
        self._networks = [
            Classifier(network, f"preprocess.expression.networks[{number}]")
            for number, network in enumerate(params.networks)
        ]
        self._source = " + ".join(network.fingerprint for network in self._networks)

    def complete(self, captions: Sequence[Caption], faces: Sequence[FaceView]) -> list[Caption]:
        """Return the captions with the expressions of their faces, where none was given with the photo."""
        completed = list(captions)
        lacking = [row for row, caption in enumerate(captions) if caption.expression is None]
        if not self._networks or not lacking:
            return completed
        for row, (word, confidence) in zip(lacking, self.read([faces[row] for row in lacking]), strict=True):
            completed[row] = replace(captions[row], expression=word, confidence=confidence, source=self._source)
        return completed

    def read(self, faces: Sequence[FaceView]) -> list[tuple[str | None, float | None]]:
        """Return for each face its expression, None where it is open, and the probability of the likeliest one.

        That is None where a network gives NaN.
        """
        images, boxes, keypoints = [[getattr(face, name) for face in faces] for name in ("image", "bbox", "keypoints")]
        votes = np.mean([network.probabilities(images, boxes, keypoints) for network in self._networks], axis=0)
        named: list[tuple[str | None, float | None]] = []
        for probabilities in votes:
            best = int(probabilities.argmax())
            confidence = float(probabilities[best])
            if np.isnan(confidence):
                named.append((None, None))
            else:
                named.append((EXPRESSIONS[best] if confidence >= self._least[best] else None, confidence))
        return named


class NetworkPose:
    """PoseEstimator of pipelines.data.faces.protocols: the mean of networks; an angle that none measures is that of
    the landmarks.
    """

    def __init__(self, params: HeadPose) -> None:
        """Open the networks; raise UserError naming the first that is missing or is another network."""
        self._most = params.max_spread
        self._networks = [
            Regressor(network, f"preprocess.pose.networks[{number}]") for number, network in enumerate(params.networks)
        ]
        self.pose_source = " + ".join(network.fingerprint for network in self._networks)

    def poses(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection], landmarks: Sequence[np.ndarray]
    ) -> list[Pose]:
        """Return the pose of the face of each picture, given its landmarks (68, 2) in pixels of the picture."""
        where = [face.bbox for face in faces], [face.keypoints for face in faces]
        read = np.stack([network.degrees(images, *where) for network in self._networks])
        return [self._pose(read[:, row], points) for row, points in enumerate(landmarks)]

    def _pose(self, read: np.ndarray, landmarks: np.ndarray) -> Pose:
        """Return the pose for the angles (networks, 3) of one face, NaN where a network does not measure one."""
        instead = pose_of_landmarks(landmarks)
        known = [column[~np.isnan(column)] for column in read.T]
        yaw, pitch, roll = (
            float(column.mean()) if len(column) else float(getattr(instead, name))
            for name, column in zip(ANGLES, known, strict=True)
        )
        spread = float(np.ptp(known[0])) if len(known[0]) > 1 else None
        return Pose(yaw, pitch, roll, spread=spread, open=spread is not None and spread > self._most)


def check_votes(params: Preprocess) -> None:
    """Raise UserError where a network that names expressions or measures poses is missing or is another network."""
    ExpressionVote(params.expression)
    NetworkPose(params.pose)


def voting_files(params: Preprocess) -> list[Path]:
    """Return the files of the networks that name expressions and measure poses."""
    return [resolve(network.path) for network in (*params.expression.networks, *params.pose.networks)]
