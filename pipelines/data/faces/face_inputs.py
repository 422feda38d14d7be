"""The model's inputs for a face, prepared as the conventions of an adapter say."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from model.face.conventions import OURS, Conventions
from model.face.face import Face
from model.face.face_geometry import crop_landmarks, face_crop
from pipelines.core.paths import resolve
from pipelines.core.sections.data import Preprocess
from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser, pack_folder

# Published code finds 106 landmarks in a picture of this side.
_LANDMARK_SIDE = 512


class FaceInputs:
    """Makes a `Face` from an analysed photo, with crops of `side` pixels where they are aligned.

    What preprocessing stored serves this project's conventions. For others, the face pack of `preprocess` measures
    again: the embedding of exchanged colours and 106 landmarks.
    """

    def __init__(self, side: int, conventions: Conventions = OURS, preprocess: Preprocess | None = None) -> None:
        self._side = side
        self._ways = conventions
        self._preprocess = preprocess

    def face(
        self, image: np.ndarray, found: Any, expression: str | None, pose: str | None, *, edited: bool = True
    ) -> Face:
        """Return the input for a face in `image` (S, S, 3) uint8 RGB; words of face_prompts, None where they are open.

        `found` has what preprocessing measured, as a FaceRecord has: `bbox`, `keypoints`, `landmarks`, `embedding`,
        `yaw`, `pitch`. `edited`: whether a face prompt may follow, for which landmarks are found as the conventions
        say. Raise UserError where the face pack lacks a network that is needed, or none is named.
        """
        ways = self._ways
        crop = image
        if ways.crop == "aligned":
            crop = face_crop(image, found.keypoints, found.landmarks, self._side, ways.hair)
        embedding = found.embedding
        if ways.recogniser_channels == "bgr":
            embedding = self._recogniser.embed([np.ascontiguousarray(image[..., ::-1])], [found.keypoints])[0]
        points = self._points_106(image, found) if edited and ways.landmark_points == 106 else found.landmarks
        if ways.landmark_frame == "aligned":
            points = crop_landmarks(points, found.keypoints)
        else:
            height, width = image.shape[:2]
            points = (points / np.array([width, height])).astype(np.float32)
        return Face(embedding, crop, points, expression, pose, found.yaw, found.pitch)

    def _points_106(self, image: np.ndarray, found: Any) -> np.ndarray:
        """Return insightface's 106 landmarks (106, 2) in pixels of `image`."""
        from PIL import Image

        height, width = image.shape[:2]
        scale = np.array([_LANDMARK_SIDE / width, _LANDMARK_SIDE / height])
        shown = np.asarray(Image.fromarray(image).resize((_LANDMARK_SIDE, _LANDMARK_SIDE)))
        return self._landmarker.landmarks_106(shown, found.bbox * np.tile(scale, 2)) / scale

    @cached_property
    def _recogniser(self) -> InsightFaceAnalyser:
        return self._pack(landmarks_106=False)

    @cached_property
    def _landmarker(self) -> InsightFaceAnalyser:
        return self._pack(landmarks_106=True)

    def _pack(self, *, landmarks_106: bool) -> InsightFaceAnalyser:
        from pipelines.core.errors import UserError

        faces = self._preprocess
        if faces is None:
            raise UserError("the adapter's conventions need the networks of a face pack, and none is named")
        return InsightFaceAnalyser(
            pack_folder(faces.insightface_name, resolve(faces.insightface_root)),
            det_sizes=faces.det_sizes,
            det_threshold=faces.det_threshold,
            landmarks_106=landmarks_106,
        )
