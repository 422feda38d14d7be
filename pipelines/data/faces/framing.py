"""Make the stored picture: a square of the photo around the face, and the geometry of the face in it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Frame:
    """A square of a photo: left, top and side in the photo's pixels, and the side in pixels at which it is stored."""

    left: float
    top: float
    side: float
    resolution: int

    def points(self, points: np.ndarray) -> np.ndarray:
        """Return points (..., 2) in pixels of the photo as float32 pixels of the stored picture."""
        moved = (np.asarray(points, np.float64) - [self.left, self.top]) * (self.resolution / self.side)
        return moved.astype(np.float32)

    def box(self, bbox: np.ndarray) -> np.ndarray:
        """Return a box (x0, y0, x1, y1) in pixels of the stored picture, cut at its borders; (4,) float32."""
        return np.clip(self.points(np.asarray(bbox).reshape(2, 2)), 0, self.resolution).reshape(4)

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return the square of a photo (H, W, 3) uint8 as (resolution, resolution, 3) uint8."""
        height, width = image.shape[:2]
        box = (self.left, self.top, min(self.left + self.side, width), min(self.top + self.side, height))
        size = (self.resolution, self.resolution)
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0))


def frame_face(width: int, height: int, bbox: np.ndarray, resolution: int, face_share: float) -> Frame:
    """Return the square in which a face is stored.

    It is the largest square inside the photo, with the face as near its middle as the photo allows. Where the face box
    has less than `face_share` of its height (0: no bound), the square is smaller, but never narrower than the face.
    """
    x0, y0, x1, y1 = (float(value) for value in bbox)
    side = float(min(width, height))
    if face_share > 0 and y1 > y0:
        # Never narrower than the face.
        side = min(side, max((y1 - y0) / face_share, x1 - x0))
    left = min(max((x0 + x1) / 2 - side / 2, 0.0), width - side)
    top = min(max((y0 + y1) / 2 - side / 2, 0.0), height - side)
    return Frame(left, top, side, resolution)


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Return a picture (H, W, 3) uint8 RGB as JPEG, without chroma subsampling (the pictures are small)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
