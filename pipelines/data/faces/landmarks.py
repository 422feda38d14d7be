"""Find 68 landmarks by an ONNX network whose input convention is given in the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipelines.core.errors import UserError
from pipelines.core.sections.data import Landmarker as LandmarkerParams
from pipelines.data.faces.networks import Batches, open_network
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
        session = open_network(file, "preprocess.landmarker.path")
        entry = session.get_inputs()[0]
        expected = [3, params.input_size, params.input_size]
        if any(isinstance(got, int) and got != want for got, want in zip(entry.shape[1:], expected, strict=False)):
            raise UserError(f"{file}: input {entry.shape[1:]}, preprocess.landmarker.input_size says {expected}")
        outputs = session.get_outputs()[0].shape[-1]
        if isinstance(outputs, int) and outputs < 2 * _POINTS:
            raise UserError(f"{file}: {outputs} outputs, expected at least {2 * _POINTS} (68 x, y pairs)")
        self._batches = Batches(session)
        self._size, self._box_scale = params.input_size, params.box_scale
        self._mean, self._scale = np.float32(params.mean), np.float32(params.scale)
        self._step = -1 if params.channel_order == "bgr" else 1

    def landmarks(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> np.ndarray:
        """Return (N, 68, 2) float32 in pixels of N pictures (H, W, 3) uint8 RGB, given their face boxes (4,)."""
        if not images:
            return np.zeros((0, _POINTS, 2), np.float32)
        size = self._size
        inputs, sides, corners = [], [], []
        for image, box in zip(images, boxes, strict=True):
            x0, y0, x1, y1 = (float(value) for value in box)
            side = max(x1 - x0, y1 - y0) * self._box_scale
            left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
            zoom = size / side
            # Pixel centres are at half pixels, in the photo and in the square.
            shift = 0.5 * zoom - 0.5
            matrix = np.array([[zoom, 0, shift - left * zoom], [0, zoom, shift - top * zoom]])
            square = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
            ordered = square[..., :: self._step].astype(np.float32)
            inputs.append(((ordered - self._mean) / self._scale).transpose(2, 0, 1))
            sides.append(side)
            corners.append((left, top))
        shares = self._batches.run(inputs)[:, : 2 * _POINTS].reshape(-1, _POINTS, 2)
        scaled = shares * np.array(sides)[:, None, None] + np.array(corners)[:, None, :]
        return scaled.astype(np.float32)
