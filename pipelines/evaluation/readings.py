"""What the judges read from pictures: faces, identity embeddings, expression and pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipelines.data.faces.protocols import Detection, FaceDetector
from pipelines.evaluation.judges import ExpressionJudge, PoseJudge, RecogniserJudge
from pipelines.evaluation.photos import Photo

_PHOTOS_AT_ONCE = 64


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

    @staticmethod
    def joined(parts: Sequence[Readings]) -> Readings:
        """Return the readings of all parts, at least one, in their order."""
        return Readings(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Readings)}
        )


@dataclass(frozen=True)
class FaceReader:
    """The face detector and the judges of faces, without the recogniser that conditions the model.

    `expression` and `pose` are None where no network is named.
    """

    detector: FaceDetector
    recogniser: RecogniserJudge
    expression: ExpressionJudge | None
    pose: PoseJudge | None

    def single(self, images: Sequence[np.ndarray]) -> Readings:
        """Find and read the largest face of each picture."""
        return self.read(images, self.largest(images))

    def largest(self, images: Sequence[np.ndarray]) -> list[Detection | None]:
        """Find the largest face of each picture; None where there is none."""
        return [max(self.detector.detect(image), key=lambda face: face.area, default=None) for image in images]

    def known(self, photos: Sequence[Photo]) -> Readings:
        """Read the faces of real photos, which preprocessing has found."""
        # A few at a time: photos are decoded whenever they are read.
        parts = [photos[start : start + _PHOTOS_AT_ONCE] for start in range(0, len(photos), _PHOTOS_AT_ONCE)]
        return Readings.joined([self._known(part) for part in parts or [photos]])

    def _known(self, photos: Sequence[Photo]) -> Readings:
        faces = [Detection(photo.bbox, photo.keypoints, 1.0) for photo in photos]
        return self.read([photo.image for photo in photos], faces)

    def all_faces(self, images: Sequence[np.ndarray]) -> list[Readings]:
        """Find and read all faces of each picture: one row per face."""
        found = [self.detector.detect(image) for image in images]
        shown = [image for image, faces in zip(images, found, strict=True) for _ in faces]
        read = self.read(shown, [face for faces in found for face in faces])
        ends = np.cumsum([len(faces) for faces in found])
        return [read.rows(range(end - len(faces), end)) for end, faces in zip(ends.tolist(), found, strict=True)]

    def read(self, images: Sequence[np.ndarray], faces: Sequence[Detection | None]) -> Readings:
        """Read one face of each picture, None where there is none."""
        rows = [row for row, face in enumerate(faces) if face is not None]
        known = [face for face in faces if face is not None]
        shown = [images[row] for row in rows], [face.bbox for face in known], [face.keypoints for face in known]
        embedded = self.recogniser.embed(*shown)
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
            # Without a judge, what is read means nothing, and is withheld.
            expression[rows] = 0 if self.expression is None else self.expression.read(*shown)
            pose[rows], yaw[rows] = (0, 0.0) if self.pose is None else self.pose.read(*shown)
        return Readings(found, boxes, embeddings, expression, pose, yaw)


def _relative(box: np.ndarray, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return np.clip(np.asarray(box, np.float32) / np.array([width, height, width, height], np.float32), 0.0, 1.0)
