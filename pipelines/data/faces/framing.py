"""The stored picture: a square of the photo around the face, and where the face lies in it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Frame:
    """A square of a photo: left, top and side in its pixels, and the resolution it is stored at."""

    left: float
    top: float
    side: float
    resolution: int

    def points(self, points: np.ndarray) -> np.ndarray:
        """Take (..., 2) points from pixels of the photo to pixels of the stored picture, float32."""
        moved = (np.asarray(points, np.float64) - [self.left, self.top]) * (self.resolution / self.side)
        return moved.astype(np.float32)

    def box(self, bbox: np.ndarray) -> np.ndarray:
        """Take a box (x0, y0, x1, y1) to pixels of the stored picture, cut at its borders; (4,) float32."""
        return np.clip(self.points(np.asarray(bbox).reshape(2, 2)), 0, self.resolution).reshape(4)

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return the square of a photo (H, W, 3) uint8 as (resolution, resolution, 3) uint8."""
        height, width = image.shape[:2]
        box = (self.left, self.top, min(self.left + self.side, width), min(self.top + self.side, height))
        size = (self.resolution, self.resolution)
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0))


def frame_face(width: int, height: int, bbox: np.ndarray, resolution: int, face_share: float) -> Frame:
    """Return the square in which a face is stored.

    The largest square inside the photo, with the face as near its middle as the photo allows. Where the height of
    the face box would be less than `face_share` of the square (0: no bound), the square is tightened until it is.
    """
    x0, y0, x1, y1 = (float(value) for value in bbox)
    side = float(min(width, height))
    if face_share > 0 and y1 > y0:
        # Never tighter than the face is wide: the face stays inside.
        side = min(side, max((y1 - y0) / face_share, x1 - x0))
    left = min(max((x0 + x1) / 2 - side / 2, 0.0), width - side)
    top = min(max((y0 + y1) / 2 - side / 2, 0.0), height - side)
    return Frame(left, top, side, resolution)


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Return a picture (H, W, 3) uint8 RGB as JPEG, colour at full resolution (small pictures have none to spare)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
