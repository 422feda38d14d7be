"""Readings of pictures: face, expression, pose and identity by the face networks, colours by nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.foundation.augment import normalised
from model.foundation.detector import open_analysis
from model.foundation.export import open_session
from model.foundation.expression_pose import crop
from model.foundation.face_networks import FILES
from model.foundation.people import Array
from model.foundation.recogniser import aligned

NEIGHBOURS = 7


class OnnxNetwork(nn.Module):
    """An ONNX file as a module: one input, a tensor or a tuple of tensors as output."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._session = open_session(file)

    def forward(self, x: Tensor) -> Any:
        """Return the outputs for (B, ...) float32, in their order."""
        name = self._session.get_inputs()[0].name
        answers = [torch.from_numpy(a) for a in self._session.run(None, {name: np.ascontiguousarray(x.numpy())})]
        return answers[0] if len(answers) == 1 else tuple(answers)


@dataclass(frozen=True)
class FaceReadings:
    """Readings of N faces: `expression` and `pose` (N,) indices into `face_prompts`, `identity` (N, d) unit norm."""

    expression: Array
    pose: Array
    identity: Array


class FaceReader:
    """The detector (by FaceAnalysis), the judge of expression and pose, and the judge of identity."""

    NEEDS = (FILES["detector"], FILES["expression_pose"], FILES["judge"])

    def __init__(self, file: Callable[[str], Path], det_size: tuple[int, int] | None = None) -> None:
        """Open the networks of NEEDS; `file` returns the path of each, `det_size` is None for FaceAnalysis' sizes."""
        self._analysis = open_analysis(file(FILES["detector"]).parent, det_size, modules=["detection"])
        self._expression_pose = OnnxNetwork(file(FILES["expression_pose"]))
        self._recogniser = OnnxNetwork(file(FILES["judge"]))

    def keypoints(self, images: Sequence[Array]) -> list[Array | None]:
        """Return the key points (5, 2) of the largest face in each picture (H, W, 3) uint8 RGB, None without a face."""
        return [faces[0] if len(faces) else None for faces in self.all_keypoints(images)]

    def all_keypoints(self, images: Sequence[Array]) -> list[Array]:
        """Return the key points (F, 5, 2) of all faces in each picture (H, W, 3) uint8 RGB, the largest face first."""
        found: list[Array] = []
        for image in images:
            faces = self._analysis.get(np.ascontiguousarray(image[..., ::-1]))
            faces = sorted(faces, key=lambda face: float(np.prod(face.bbox[2:] - face.bbox[:2])), reverse=True)
            found.append(np.array([face.kps for face in faces], np.float32).reshape(-1, 5, 2))
        return found

    def read(self, images: Sequence[Array], keypoints: Sequence[Array]) -> FaceReadings:
        """Return the readings of N ≥ 1 pictures (H, W, 3) uint8 RGB; `keypoints` (5, 2) mark the face in each."""
        pairs = list(zip(images, keypoints, strict=True))
        expression, pose, _ = self._expression_pose(
            normalised(np.stack([crop(image, points) for image, points in pairs]))
        )
        identity = self._recogniser(normalised(np.stack([aligned(image, points) for image, points in pairs])))
        identity = identity / identity.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return FaceReadings(expression.argmax(1).numpy(), pose.argmax(1).numpy(), identity.numpy())


def clothes_colour(image: Array) -> Array:
    """Return (9,) quartiles of the three Lab channels of the clothes: a strip at the bottom without the arms."""
    side = image.shape[0]
    return _quartiles(image[round(0.9 * side) :, round(0.22 * side) : round(0.78 * side)].reshape(-1, 3))


def surroundings_colour(image: Array) -> Array:
    """Return (9,) quartiles of the three Lab channels beside and above the head."""
    side = image.shape[0]
    high, wide, top = round(0.38 * side), round(0.1 * side), max(round(0.06 * side), 1)
    regions = (image[:high, :wide], image[:high, -wide:], image[:top])
    return _quartiles(np.concatenate([region.reshape(-1, 3) for region in regions]))


def _quartiles(pixels: Array) -> Array:
    import cv2

    lab = cv2.cvtColor(np.ascontiguousarray(pixels[None]), cv2.COLOR_RGB2LAB)[0]
    return np.percentile(lab.astype(np.float32), (25, 50, 75), axis=0).ravel()


def nearest_class(known: Array, classes: Array, asked: Array, *, leave_out: bool = False) -> Array:
    """Return, for each row of `asked` (M, d), the most frequent of `classes` (N,) among its 7 nearest `known` (N, d).

    With `leave_out`, `asked` must be `known`, and a row is not its own neighbour.
    """
    distance = ((asked[:, None] - known[None]) ** 2).sum(-1)
    if leave_out:
        np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(known) - leave_out)]
    return np.array([np.bincount(classes[row]).argmax() for row in nearest])
