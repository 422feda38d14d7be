"""Choose a face in a photo, measure its sharpness, and decide whether it is good enough."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipelines.core.sections.data import Preprocess
from pipelines.data.faces.protocols import Detection

# Sharpness is measured at one size, so that it is comparable between resolutions.
_SHARPNESS_SIDE = 128


def choose_face(detections: Sequence[Detection], several_faces: str) -> tuple[Detection | None, str | None]:
    """Return (face, None), or (None, reason) with the reason `no_face` or `several_faces`.

    `several_faces` is "largest" (take the largest box; of equal ones, the higher score) or "reject".
    """
    if not detections:
        return None, "no_face"
    if len(detections) > 1 and several_faces == "reject":
        return None, "several_faces"
    return max(detections, key=lambda face: (face.area, face.score)), None


def rejection_reason(side: float, sharpness: float, params: Preprocess) -> str | None:
    """Return why a face is rejected (`too_small`, `blurred`), or None where it is not; `side` in pixels of the file."""
    if side < params.min_face_side:
        return "too_small"
    return "blurred" if sharpness < params.min_sharpness else None


def sharpness(image: np.ndarray, bbox: np.ndarray) -> float:
    """Return the variance of the Laplacian of the grey face, its longer side resized to 128 pixels; 0 outside `image`.

    `image` (H, W, 3) uint8 RGB, `bbox` (4,) in its pixels. A blurred face is near 0, a sharp one in the hundreds.
    """
    height, width = image.shape[:2]
    x0, y0 = max(0, int(bbox[0])), max(0, int(bbox[1]))
    x1, y1 = min(width, int(np.ceil(bbox[2]))), min(height, int(np.ceil(bbox[3])))
    if x1 <= x0 or y1 <= y0:
        return 0.0
    face = cv2.cvtColor(image[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY)
    shrinks = max(face.shape) > _SHARPNESS_SIDE
    scale = _SHARPNESS_SIDE / max(face.shape)
    size = (max(1, round(face.shape[1] * scale)), max(1, round(face.shape[0] * scale)))
    face = cv2.resize(face, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return float(cv2.Laplacian(face, cv2.CV_64F).var())
