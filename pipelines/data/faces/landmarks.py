"""Find 68 landmarks by an ONNX network whose input convention is given in the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipelines.core.sections.data import Landmarker as LandmarkerParams
from pipelines.core.sections.face_networks import FaceNetwork
from pipelines.data.faces.face_crops import as_input, square_of
from pipelines.data.faces.face_networks import FaceReader
from pipelines.data.faces.protocols import Landmarker

_POINTS = 68


def load_landmarker(params: LandmarkerParams, path: Path) -> Landmarker:
    """Load the landmarker of the parameters from `path`; raise UserError where its file is missing or does not fit."""
    if params.kind == "fan":
        from pipelines.data.faces.fan import FanLandmarker

        return FanLandmarker(path)
    return OnnxLandmarker(path, params)


class OnnxLandmarker:
    """A network that maps a square around the face box to 68 x, y pairs in [0, 1] of it (its first 136 outputs)."""

    def __init__(self, file: Path, params: LandmarkerParams) -> None:
        """Open `file`; raise UserError where it is missing or its input or output does not fit the convention."""
        convention = FaceNetwork(
            path=str(file),
            crop_scale=params.box_scale,
            size=params.input_size,
            colour=params.channel_order,
            mean=params.mean,
            scale=params.scale,
        )
        self._network = FaceReader(convention, "preprocess.landmarker")
        if self._network.width < 2 * _POINTS:
            raise self._network.refuse(
                f"{self._network.width} outputs", f"at least {2 * _POINTS} (68 x, y pairs)", "name another network"
            )

    def landmarks(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> np.ndarray:
        """Return (N, 68, 2) float32 in pixels of N pictures (H, W, 3) uint8 RGB, given their face boxes (4,)."""
        if not images:
            return np.zeros((0, _POINTS, 2), np.float32)
        convention = self._network.params
        size = convention.size
        inputs, sides, corners = [], [], []
        for image, box in zip(images, boxes, strict=True):
            left, top, side = square_of(box, convention.crop_scale)
            zoom = size / side
            # Pixel centres are at half pixels, in the photo and in the square.
            shift = 0.5 * zoom - 0.5
            matrix = np.array([[zoom, 0, shift - left * zoom], [0, zoom, shift - top * zoom]])
            square = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
            inputs.append(as_input(square, convention))
            sides.append(side)
            corners.append((left, top))
        shares = self._network.run(inputs)[:, : 2 * _POINTS].reshape(-1, _POINTS, 2)
        scaled = shares * np.array(sides)[:, None, None] + np.array(corners)[:, None, :]
        return scaled.astype(np.float32)
