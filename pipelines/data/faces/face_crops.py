"""Cut a face out of a photo as a network expects it, and turn its pixels into the network's numbers."""

from __future__ import annotations

import warnings

import cv2
import numpy as np

from model.face.face_geometry import crop_matrix
from pipelines.core.sections.face_networks import FaceNetwork


def square_of(box: np.ndarray, scale: float) -> tuple[float, float, float]:
    """Return left, top and side of the square around a face box (4,), `scale` times as wide as its longer side."""
    x0, y0, x1, y1 = (float(value) for value in box)
    side = max(x1 - x0, y1 - y0) * scale
    return (x0 + x1 - side) / 2, (y0 + y1 - side) / 2, side


def face_input(image: np.ndarray, box: np.ndarray, keypoints: np.ndarray, network: FaceNetwork) -> np.ndarray:
    """Return the face of a photo (H, W, 3) uint8 RGB as one input of the network: float32 of shape `network.shape`.

    `box` (4,) and `keypoints` (5, 2) are in pixels of the photo; a crop uses only what it needs of them.
    """
    return as_input(face_picture(image, box, keypoints, network), network)


def as_input(picture: np.ndarray, network: FaceNetwork) -> np.ndarray:
    """Return a picture (S, S, 3) uint8 RGB as float32 of shape `network.shape`, in the network's colours and range."""
    if network.colour == "grey":
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    elif network.colour == "bgr":
        picture = picture[..., ::-1]
    scaled = (picture.astype(np.float32) - np.asarray(network.mean, np.float32)) / np.asarray(network.scale, np.float32)
    return scaled.transpose(2, 0, 1) if network.layout == "nchw" else scaled


def face_picture(image: np.ndarray, box: np.ndarray, keypoints: np.ndarray, network: FaceNetwork) -> np.ndarray:
    """Return the face of a photo (H, W, 3) uint8 RGB as the network's square, (size, size, 3) uint8 RGB."""
    size = network.size
    if network.crop == "box":
        return _box_crop(image, square_of(box, network.crop_scale), size, edge=network.outside == "edge")
    points = np.asarray(keypoints, np.float32)
    if network.crop == "face":
        return cv2.warpAffine(image, crop_matrix(points) * size, (size, size), flags=cv2.INTER_AREA)
    from insightface.utils.face_align import norm_crop

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # insightface calls scikit-image by a deprecated name
        crop: np.ndarray = norm_crop(image, points, size)
    return crop


def _box_crop(image: np.ndarray, square: tuple[float, float, float], size: int, *, edge: bool) -> np.ndarray:
    """Return a square of a photo; pixels are averaged where it shrinks."""
    height, width = image.shape[:2]
    left, top = round(square[0]), round(square[1])
    side = max(1, round(square[2]))
    # A box may lie outside the photo altogether: its nearest pixel then stands for it.
    x0, x1 = np.clip([left, left + side], [0, 1], [width - 1, width])
    y0, y1 = np.clip([top, top + side], [0, 1], [height - 1, height])
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    above, below, before, after = (
        max(0, int(value)) for value in (y0 - top, top + side - y1, x0 - left, left + side - x1)
    )
    kind = cv2.BORDER_REPLICATE if edge else cv2.BORDER_CONSTANT
    crop = cv2.copyMakeBorder(image[y0:y1, x0:x1], above, below, before, after, kind, value=(0, 0, 0))
    shrinks = crop.shape[0] > size
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
