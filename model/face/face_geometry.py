"""Aligned face crops and landmark pictures, the inputs of the face encoder and the landmark encoder.

Every face is aligned by a similarity transform from its five key points to the ArcFace template. The template is shrunk
to keep chin, ears and forehead inside the frame, which is the unit square: multiply by a size to get pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

# ArcFace's 112-px template: eyes, nose tip, mouth corners; of each pair, the point on the left of the picture first.
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
# The template is shrunk around a point slightly above the mean of its points, to leave room for chin and forehead.
_ZOOM = 0.62
_CENTRE = np.array([56.0, 66.0], np.float32)
CROP_TEMPLATE = (((ARCFACE_TEMPLATE - _CENTRE) * _ZOOM) / 112.0 + np.array([0.5, 0.54], np.float32)).astype(np.float32)

_BACKGROUND = 127
# The 68 points end at the brows: the mask extends above them by this share of the height from chin to nose bridge.
_FOREHEAD = 0.45
# Hair reaches as much further up and to the sides, as shares of that height, down to the jaw's corners at most.
_HAIR_UP, _HAIR_ASIDE = 0.95, 0.3


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the least-squares 2x3 similarity (rotation, uniform scale, translation) from `source` to `target`.

    Both are (N, 2) float arrays with N >= 2 (Umeyama 1991, without reflection).
    """
    source = np.asarray(source, np.float64)
    target = np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    norm = max(float((a**2).sum()), 1e-12)
    cos = float((a * b).sum()) / norm
    sin = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / norm
    rotation = np.array([[cos, -sin], [sin, cos]])
    return np.hstack([rotation, (target_mean - rotation @ source_mean)[:, None]])


def transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a 2x3 affine `matrix` to (..., 2) points."""
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def crop_matrix(keypoints: np.ndarray) -> np.ndarray:
    """Return the 2x3 similarity from picture pixels to the unit crop frame; `keypoints` (5, 2) in pixels."""
    return similarity(keypoints, CROP_TEMPLATE)


def crop_landmarks(landmarks: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Return landmarks (68, 2) in the unit crop frame; `landmarks` and `keypoints` (5, 2) are in pixels."""
    return transform(landmarks, crop_matrix(keypoints))


def face_crop(
    image: np.ndarray, keypoints: np.ndarray, landmarks: np.ndarray, size: int, hair: bool = False
) -> np.ndarray:
    """Return the aligned face, (size, size, 3) uint8 RGB; everything outside the face is grey.

    Visible background and clothes would determine most of the identity tokens. `hair` also keeps what is around the
    head above the jaw: the hair, and between its strands some background.
    `image` is (H, W, 3) uint8 RGB; `keypoints` (5, 2) and `landmarks` (68, 2) are in its pixels.
    """
    matrix = crop_matrix(keypoints)
    scaled = matrix * size
    crop = _warp(image, scaled, size)
    points = transform(landmarks, scaled)
    hull = cv2.convexHull(face_outline(points, hair).astype(np.float32)).astype(np.int32)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(mask, hull, 255)
    return np.where(mask[..., None] > 0, crop, np.uint8(_BACKGROUND))


def face_outline(points: np.ndarray, hair: bool = False) -> np.ndarray:
    """Return points whose convex hull is the face up to the forehead, or with `hair` what is around it as well.

    `points` (68, 2) are landmarks in any frame that has no other shape than the picture.
    """
    brows = points[17:27]
    height = float(np.linalg.norm(points[27] - points[8]))
    up = (points[27] - points[8]) / max(height, 1e-6)
    outline = np.concatenate([points, brows + up * height * _FOREHEAD])
    if not hair:
        return outline
    aside = np.array([-up[1], up[0]]) * height * _HAIR_ASIDE
    sides = [points[[0, 4]] - aside, points[[16, 12]] + aside]
    return np.concatenate([outline, brows + up * height * _HAIR_UP, *sides])


def _warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Apply the 2x3 similarity `matrix` to a picture; pixels are averaged if it shrinks to less than half."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.5:
        # warpAffine only interpolates between adjacent pixels: shrink by area first.
        height, width = image.shape[:2]
        target = max(1, round(width * 2 * scale)), max(1, round(height * 2 * scale))
        image = cv2.resize(image, target, interpolation=cv2.INTER_AREA)
        ratio = np.array([target[0] / width, target[1] / height])
        # Pixel centres: x in the picture = (x in the reduced picture + 1/2) / ratio - 1/2.
        shift = matrix[:, :2] @ (0.5 / ratio - 0.5)
        matrix = np.hstack([matrix[:, :2] / ratio, (matrix[:, 2] + shift)[:, None]])
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=(_BACKGROUND,) * 3)


def landmark_picture(landmarks: np.ndarray, size: int = 96, *, drop_outside: bool = False) -> np.ndarray:
    """Draw landmarks (N, 2) of a unit frame as one white pixel each: (1, size, size) float32 in {-1, 1}.

    Points outside the frame are drawn on its border, or with `drop_outside` not at all.
    """
    picture = np.full((1, size, size), -1.0, np.float32)
    if drop_outside:
        landmarks = landmarks[((landmarks > 0) & (landmarks < 1)).all(axis=1)]
    cells = np.clip(np.floor(landmarks * size), 0, size - 1).astype(int)
    picture[0, cells[:, 1], cells[:, 0]] = 1.0
    return picture
