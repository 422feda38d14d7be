"""What the judges read from pictures: faces, identity embeddings, expression and pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipelines.data.faces.protocols import Detection, FaceDetector
from pipelines.evaluation.judges import ExpressionPoseJudge, RecogniserJudge


@dataclass(frozen=True)
class Readings:
    """The largest face of each of N pictures.

    `found` (N,) bool; `boxes` (N, 4) x0 y0 x1 y1 in [0, 1] of the picture; `embeddings` (N, d) unit norm;
    `expression` and `pose` (N,) indices into face_prompts; `yaw` (N,) degrees. Where no face was found: zeros, −1
    and NaN.
    """

    found: np.ndarray
    boxes: np.ndarray
    embeddings: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    yaw: np.ndarray

    def rows(self, index: Sequence[int] | np.ndarray) -> Readings:
        """Return the readings of the pictures `index`, in that order."""
        chosen = np.asarray(index, int)
        return Readings(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


@dataclass(frozen=True)
class FaceReader:
    """The face detector and the judges of faces, without the recogniser that conditions the model."""

    detector: FaceDetector
    recogniser: RecogniserJudge
    expression_pose: ExpressionPoseJudge

    def single(self, images: Sequence[np.ndarray]) -> Readings:
        """Find and read the largest face of each picture."""
        largest = [max(self.detector.detect(image), key=lambda face: face.area, default=None) for image in images]
        return self._read(images, largest)

    def known(self, images: Sequence[np.ndarray], keypoints: Sequence[np.ndarray]) -> Readings:
        """Read pictures with known key points (5, 2); the boxes are the points' bounding boxes."""
        faces = [
            Detection(np.concatenate([points.min(0), points.max(0)]), np.asarray(points, np.float32), 1.0)
            for points in keypoints
        ]
        return self._read(images, faces)

    def all_faces(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for each picture the embeddings (F, d) and boxes (F, 4) in [0, 1] of all its faces."""
        found = [self.detector.detect(image) for image in images]
        embeddings = self.recogniser.embed(
            [image for image, faces in zip(images, found, strict=True) for _ in faces],
            [face.keypoints for faces in found for face in faces],
        )
        ends = np.cumsum([len(faces) for faces in found])
        return [
            (part, np.array([_relative(face.bbox, image) for face in faces], np.float32).reshape(-1, 4))
            for part, faces, image in zip(np.split(embeddings, ends[:-1]), found, images, strict=True)
        ]

    def _read(self, images: Sequence[np.ndarray], faces: Sequence[Detection | None]) -> Readings:
        rows = [row for row, face in enumerate(faces) if face is not None]
        shown = [images[row] for row in rows]
        points = [face.keypoints for face in faces if face is not None]
        embedded, motions = self.recogniser.embed(shown, points), self.expression_pose.read(shown, points)
        count = len(faces)
        found = np.zeros(count, bool)
        boxes = np.zeros((count, 4), np.float32)
        embeddings = np.zeros((count, embedded.shape[1]), np.float32)
        expression, pose = np.full(count, -1), np.full(count, -1)
        yaw = np.full(count, np.nan)
        if rows:
            found[rows] = True
            boxes[rows] = [_relative(face.bbox, image) for face, image in zip(faces, images, strict=True) if face]
            embeddings[rows] = embedded
            expression[rows], pose[rows], yaw[rows] = motions.expression, motions.pose, motions.yaw
        return Readings(found, boxes, embeddings, expression, pose, yaw)


def _relative(box: np.ndarray, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return np.clip(np.asarray(box, np.float32) / np.array([width, height, width, height], np.float32), 0.0, 1.0)
