"""What is read from pictures by networks that drew nothing: faces and what they do, and colours by their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.foundation.augment import normalised
from model.foundation.detector import open_analysis
from model.foundation.export import open_session
from model.foundation.expression_pose import crop
from model.foundation.face_networks import FILES
from model.foundation.recogniser import aligned

NEIGHBOURS = 7

Array = npt.NDArray[Any]


class OnnxNetwork(nn.Module):
    """An ONNX file where a module is expected: one input, a tensor or a tuple of tensors out."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._session = open_session(file)

    def forward(self, x: Tensor) -> Any:
        """Run the file on (B, ...) float32; its outputs, in their order."""
        name = self._session.get_inputs()[0].name
        answers = [torch.from_numpy(a) for a in self._session.run(None, {name: np.ascontiguousarray(x.numpy())})]
        return answers[0] if len(answers) == 1 else tuple(answers)


@dataclass(frozen=True)
class FaceReadings:
    """What N faces show: `expression` and `pose` (N,) indices into `face_prompts`, `identity` (N, d) of unit norm."""

    expression: Array
    pose: Array
    identity: Array


class FaceReader:
    """The detector as FaceAnalysis runs it, the judge of expression and pose, and the judge of identity."""

    NEEDS = (FILES["detector"], FILES["expression_pose"], FILES["judge"])

    def __init__(self, weights: Path) -> None:
        self._analysis = open_analysis((weights / FILES["detector"]).parent, modules=["detection"])
        self._motion = OnnxNetwork(weights / FILES["expression_pose"])
        self._who = OnnxNetwork(weights / FILES["judge"])

    def keypoints(self, images: Sequence[Array]) -> list[Array | None]:
        """Return the five points (5, 2) of the largest face of each picture (S, S, 3) uint8 RGB, None without one."""
        found: list[Array | None] = []
        for image in images:
            faces = self._analysis.get(np.ascontiguousarray(image[..., ::-1]))
            faces = sorted(faces, key=lambda face: float(np.prod(face.bbox[2:] - face.bbox[:2])))
            found.append(np.asarray(faces[-1].kps, np.float32) if faces else None)
        return found

    def read(self, images: Sequence[Array], keypoints: Sequence[Array]) -> FaceReadings:
        """Return what N pictures (S, S, 3) uint8 RGB show at their key points (5, 2); N is at least 1."""
        pairs = list(zip(images, keypoints, strict=True))
        expression, pose, _ = self._motion(normalised(np.stack([crop(image, points) for image, points in pairs])))
        identity = self._who(normalised(np.stack([aligned(image, points) for image, points in pairs])))
        identity = identity / identity.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return FaceReadings(expression.argmax(1).numpy(), pose.argmax(1).numpy(), identity.numpy())


def clothes_colour(image: Array) -> Array:
    """Return (9,) quartiles of the three Lab channels where clothes are: a strip at the bottom, arms left out."""
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
    """Return for each row of `asked` (M, d) the class that most of its neighbours in `known` (N, d) have.

    With `leave_out`, `asked` is `known` and a row is no neighbour of itself.
    """
    distance = ((asked[:, None] - known[None]) ** 2).sum(-1)
    if leave_out:
        np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(known) - leave_out)]
    return np.array([np.bincount(classes[row]).argmax() for row in nearest])
