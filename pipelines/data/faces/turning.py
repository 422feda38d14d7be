"""Turn a photo upright that is stored sideways or upside down, by the face that is found in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipelines.data.faces.protocols import Detection, FaceDetector, Recogniser

# Detectors miss faces of a few pixels: smaller pictures are enlarged first.
_LEAST_SIDE = 128
# Turns are compared on the surroundings of the face, reduced to this side: a small part of the cost of detection.
_QUICK_SIDE, _SURROUNDINGS = 128, 2.0
# Upright heads lean less than this many degrees; it is the half-way mark to the next turn.
_MAX_LEAN = 45.0
# Only an upside-down face scores nearly as high as an upright one, so just below `sure_score` no other turn is tried.
_UPSIDE_DOWN_BAND = 0.04
# What scores below these may be no face: a better one is then searched for elsewhere in the photo, in all detail or in
# the reduced photo.
_GUESS, _DOUBT = 0.6, 0.7
# The quick score of a doubtful face may be this much lower than that of the whole detection.
_QUICK_ERROR = 0.1
# Scores of two turns that differ by less do not tell which of them is upright.
_CLEAR_LEAD = 0.04


@dataclass(frozen=True)
class UprightFaces:
    """A photo turned upright, and its faces.

    `image` (H, W, 3) uint8 is the photo after turning, `shown` the same, enlarged by `factor` where it is small;
    `faces` are in pixels of `shown`. `turned`: by how many degrees clockwise the photo was turned (0, 90, 180, 270);
    None where two turns are equally likely and show different people, so that none is chosen.
    """

    image: np.ndarray
    shown: np.ndarray
    factor: float
    faces: list[Detection]
    turned: int | None

    @property
    def surest(self) -> Detection | None:
        """The face with the highest score."""
        return max(self.faces, key=lambda face: face.score, default=None)

    @property
    def score(self) -> float:
        """The highest score of a face, 0 without one."""
        return 0.0 if self.surest is None else self.surest.score


def find_upright(
    image: np.ndarray, detector: FaceDetector, recogniser: Recogniser, sure_score: float, agreement: float | None
) -> UprightFaces:
    """Detect the faces of a photo (H, W, 3) uint8 RGB; turn the photo where that makes its surest face upright.

    Other turns are tried where the detector is less sure than `sure_score`, where the face leans by more than 45
    degrees, or where no face is found; `sure_score` 0 tries none. Below the cosine `agreement`, two turns of a photo
    show the recogniser two people; None: it is not known, so that two turns never agree.
    """
    stored = detected(image, detector)
    face = stored.surest
    turns = _turns_to_try(face, sure_score)
    if not turns:
        return stored
    own = stored.score
    if face is None or own >= _GUESS:
        best = _best_turn(stored.shown, face, turns, detector, own)
        if best is None:
            return stored
        turns = (best,)
    other = max((detected(image, detector, turn) for turn in turns), key=lambda found: found.score)
    if face is None:
        return other if other.score >= _GUESS else stored
    if abs(other.score - own) < _CLEAR_LEAD and not _agree(stored, other, recogniser, agreement):
        return replace(stored, turned=None)
    return other if other.score > own else stored


def turn_clockwise(image: np.ndarray, degrees: int) -> np.ndarray:
    """Return a picture (H, W, 3) turned by 0, 90, 180 or 270 degrees clockwise."""
    return np.ascontiguousarray(np.rot90(image, -(degrees // 90))) if degrees else image


def enlarged(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a picture whose longer side is below 128 pixels enlarged to that, and the factor; others unchanged."""
    side = max(image.shape[:2])
    if side >= _LEAST_SIDE:
        return image, 1.0
    factor = _LEAST_SIDE / side
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), factor


def lean(face: Detection) -> float:
    """Return by how many degrees a face leans clockwise, from the mouth's middle to the eyes'; -180 to 180."""
    right, down = face.keypoints[:2].mean(0) - face.keypoints[3:].mean(0)
    return float(np.degrees(np.arctan2(right, -down)))


def _turns_to_try(face: Detection | None, sure_score: float) -> Sequence[int]:
    if not sure_score:
        return ()
    if face is None or face.score < sure_score - _UPSIDE_DOWN_BAND or abs(lean(face)) > _MAX_LEAN:
        return (90, 180, 270)
    return (180,) if face.score < sure_score else ()


def detected(image: np.ndarray, detector: FaceDetector, turned: int = 0) -> UprightFaces:
    """Turn a picture (H, W, 3) uint8 RGB by `turned` degrees clockwise and detect the faces in it."""
    upright = turn_clockwise(image, turned)
    shown, factor = enlarged(upright)
    return UprightFaces(upright, shown, factor, detector.detect(shown), turned)


def _best_turn(
    image: np.ndarray, face: Detection | None, turns: Sequence[int], detector: FaceDetector, own: float
) -> int | None:
    """Return the turn in which a reduced part of the photo has the best score; None where the photo's own is better.

    The part is the surroundings of the face, then, where the face itself is in doubt, the whole photo.
    """
    for around in (face, None):
        part = _surroundings(image, around)
        scores = {turn: detector.quick_score(turn_clockwise(part, turn)) for turn in turns}
        best = max(turns, key=lambda turn: scores[turn])
        if scores[best] > max(0.0, own - (_QUICK_ERROR if own < _DOUBT else 0)):
            return best
        if around is None or own >= _DOUBT:
            break
    return None


def _surroundings(image: np.ndarray, face: Detection | None) -> np.ndarray:
    """Return the part of a picture around a face (None: all of it), its longer side reduced to _QUICK_SIDE."""
    height, width = image.shape[:2]
    left, top, right, bottom = 0, 0, width, height
    if face is not None:
        (x0, y0), (x1, y1) = face.bbox[:2], face.bbox[2:]
        reach = max(x1 - x0, y1 - y0) * _SURROUNDINGS / 2
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        left, right = max(0, round(x - reach)), min(width, round(x + reach))
        top, bottom = max(0, round(y - reach)), min(height, round(y + reach))
    part = image[top:bottom, left:right]
    scale = _QUICK_SIDE / max(part.shape[:2])
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _agree(one: UprightFaces, other: UprightFaces, recogniser: Recogniser, agreement: float | None) -> bool:
    """Whether the largest faces of two turns are one person to the recogniser."""
    if agreement is None:
        return False
    largest = [max(found.faces, key=lambda face: face.area).keypoints for found in (one, other)]
    first, second = recogniser.embed([one.shown, other.shown], largest)
    return float(first @ second) >= agreement
