"""Find the part of a photo that shows one face and no other."""

from __future__ import annotations

import numpy as np

from pipelines.data.faces.framing import frame_face

Box = tuple[int, int, int, int]
# A square smaller than this many sides of the face box cuts off hair and chin.
_TIGHTEST = 1.4
_SHRINK = 0.94
# Boxes end at the hairline, so another person extends beyond the box.
_OTHERS_MARGIN = 0.1


def free_square(width: int, height: int, face: np.ndarray, others: np.ndarray) -> Box | None:
    """Return the largest square (left, top, right, bottom) around a face box (4,) that avoids `others` (P, 4).

    All values are in pixels of the photo, `width` x `height`. Return None if even the smallest square overlaps one.
    """
    x0, y0, x1, y1 = (float(value) for value in face)
    tightest = _TIGHTEST * max(x1 - x0, y1 - y0)
    margin = _OTHERS_MARGIN * np.maximum(others[:, 2] - others[:, 0], others[:, 3] - others[:, 1])[:, None]
    grown = others + margin * np.array([-1, -1, 1, 1])
    side = float(min(width, height))
    while side >= min(tightest, width, height):
        frame = frame_face(width, height, face, 1, (y1 - y0) / side)
        left, top, right, bottom = frame.left, frame.top, frame.left + frame.side, frame.top + frame.side
        overlaps = (grown[:, 0] < right) & (grown[:, 2] > left) & (grown[:, 1] < bottom) & (grown[:, 3] > top)
        if not overlaps.any():
            return round(left), round(top), round(right), round(bottom)
        side *= _SHRINK
    return None
