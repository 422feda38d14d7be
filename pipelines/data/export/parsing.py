"""Find the part of the face at each pixel with a face-parsing network such as BiSeNet in ONNX."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pipelines.core.errors import UserError
from pipelines.core.paths import resolve
from pipelines.core.sections.data import Parsing


class FaceParser:
    """Runs the network of `export.parsing` on one picture at a time.

    Input (1, 3, S, S) float32; the first output (1, classes, h, w) holds a score per class. Raises UserError where the
    file is missing or not a network, `parts` where the output has another shape.
    """

    def __init__(self, settings: Parsing) -> None:
        import onnxruntime

        file = resolve(settings.path)
        if not Path(file).is_file():
            raise UserError(f"{settings.path}: no such file; export.parsing.path names an ONNX face-parsing network")
        try:
            self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no common base for what it raises on a bad file
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise UserError(f"{settings.path}: cannot be loaded as an ONNX network ({reason})") from None
        self._input = self._session.get_inputs()[0].name
        self._settings = settings

    def parts(self, picture: np.ndarray) -> np.ndarray:
        """Return (H, W) uint8, the number of the part at each pixel of `picture` (H, W, 3) uint8 BGR."""
        settings = self._settings
        side = settings.input_size
        resized = cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR)
        if settings.channel_order == "rgb":
            resized = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)
        scaled = (resized.astype(np.float32) / 255 - np.array(settings.mean, np.float32)) / np.array(
            settings.std, np.float32
        )
        scores = np.asarray(self._session.run(None, {self._input: scaled.transpose(2, 0, 1)[None]})[0])
        if scores.ndim != 4 or scores.shape[0] != 1 or not 2 <= scores.shape[1] <= 256:
            raise UserError(
                f"{settings.path}: its first output is {scores.shape}; expected (1, classes, height, width), "
                "2 to 256 classes"
            )
        parts = scores[0].argmax(0).astype(np.uint8)
        height, width = picture.shape[:2]
        return np.asarray(cv2.resize(parts, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
