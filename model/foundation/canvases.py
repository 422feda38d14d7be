"""Training canvases of the detector: photos of one or two people at many sizes and places, or without faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.foundation.augment import degraded
from model.foundation.people import Array, People

SIDE = 128
MAX_FACES = 8
# Mirroring swaps left and right: the eyes, and the corners of the mouth.
_MIRRORED = [1, 0, 2, 4, 3]


@dataclass(frozen=True)
class Canvases:
    """A batch: `images` (B, 128, 128, 3) uint8 RGB; `boxes` (B, 8, 4) x0 y0 x1 y1; `keypoints` (B, 8, 5, 2).

    `state` (B, 8): 1 a face, 0 nothing, −1 a face too little visible to count as found or as missed.
    """

    images: Array
    boxes: Array
    keypoints: Array
    state: Array


def canvases(data: People, batch: int, rng: np.random.Generator) -> Canvases:
    """Return a batch of canvases of training people."""
    images = np.zeros((batch, SIDE, SIDE, 3), np.uint8)
    boxes = np.zeros((batch, MAX_FACES, 4), np.float32)
    keypoints = np.zeros((batch, MAX_FACES, 5, 2), np.float32)
    state = np.zeros((batch, MAX_FACES), np.int8)
    for number in range(batch):
        count = 0
        image = _background(rng)
        for window in _layout(rng):
            source, face_boxes, face_points = _source(data, rng)
            if rng.random() < 0.08:
                source, face_boxes, face_points = _faceless(source, face_boxes, rng)
            matrix = _view(source.shape[:2], window, rng)
            part, boxes_here, points_here = _warp(source, face_boxes, face_points, matrix, rng)
            x0, y0, x1, y1 = window
            image[y0:y1, x0:x1] = part[y0:y1, x0:x1]
            for box, points in zip(boxes_here, points_here, strict=True):
                visible = _visible_share(box, window)
                if visible < 0.2 or count == MAX_FACES:
                    continue
                boxes[number, count], keypoints[number, count] = box, points
                state[number, count] = 1 if visible > 0.75 else -1
                count += 1
        images[number] = image
    return Canvases(images, boxes, keypoints, state)


def _background(rng: np.random.Generator) -> Array:
    import cv2

    if rng.random() < 0.3:
        return np.zeros((SIDE, SIDE, 3), np.uint8)
    cells = int(rng.choice([1, 2, 4, 16]))
    colours = rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
    return cv2.resize(colours, (SIDE, SIDE), interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_NEAREST])))


def _layout(rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Return windows x0 y0 x1 y1 for photos: mostly the whole canvas, else letterboxed, up to four photos, or none."""
    kind = rng.random()
    if kind < 0.55:
        return [(0, 0, SIDE, SIDE)]
    if kind < 0.68:
        end = int(rng.integers(72, 120))
        return [(0, 0, end, SIDE)] if rng.random() < 0.5 else [(0, 0, SIDE, end)]
    if kind < 0.95:
        x, y = (int(value) for value in rng.integers(44, 85, 2))
        windows = [(0, 0, x, y), (x, 0, SIDE, y), (0, y, x, SIDE), (x, y, SIDE, SIDE)]
        return [window for window in windows if rng.random() < 0.85]
    return []


def _source(data: People, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    sets = [(groups, rows) for groups in data.groups if len(rows := data.train_rows(groups))]
    if sets and rng.random() < 0.3:
        groups, rows = sets[int(rng.integers(len(sets)))] if len(sets) > 1 else sets[0]
        row = int(rng.choice(rows))
        people = slice(0, int(groups.count[row]))
        return degraded(groups.photos[row], rng), groups.boxes[row][people], groups.keypoints[row][people]
    row = int(rng.choice(data.train))
    return degraded(data.photos[row], rng), data.boxes[row][None], data.keypoints[row][None]


def _faceless(image: Array, boxes: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return the photo with faces painted over, to teach that hair, clothes and background alone are no face."""
    image = image.copy()
    for x0, y0, x1, y1 in np.clip(boxes, 0, max(image.shape[:2])).astype(int):
        patch = image[y0:y1, x0:x1]
        if patch.size:
            patch[:] = patch.reshape(-1, 3).mean(0) if rng.random() < 0.5 else rng.integers(0, 256, 3)
    return image, np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32)


def _view(size: tuple[int, ...], window: tuple[int, int, int, int], rng: np.random.Generator) -> Array:
    """Return the 2x3 matrix from photo (height, width) to canvas: it about fills its window, or has a random size."""
    x0, y0, x1, y1 = window
    extent = max(x1 - x0, y1 - y0)
    exact = rng.random() < 0.35
    zoom = extent / max(size) * (float(rng.uniform(0.96, 1.04)) if exact else float(np.exp(rng.uniform(-0.9, 0.75))))
    angle = np.radians(rng.normal(0, 5))
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    reach = 0.02 if exact else 0.2
    target = np.array([x0 + x1, y0 + y1]) / 2 + rng.uniform(-reach, reach, 2) * extent
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.hstack([turn, (target - turn @ np.array([size[1] / 2, size[0] / 2]))[:, None]])


def _warp(
    image: Array, boxes: Array, points: Array, matrix: Array, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    import cv2

    matrix = matrix.copy()
    if rng.random() < 0.5:
        side = image.shape[1]
        image = image[:, ::-1]
        boxes = np.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], 1)
        points = (points * [-1, 1] + [side, 0])[:, _MIRRORED]
    # Whole numbers are pixel corners in our coordinates, pixel centres in OpenCV's.
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    border = cv2.BORDER_REPLICATE if rng.random() < 0.6 else cv2.BORDER_CONSTANT
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    part = cv2.warpAffine(
        np.ascontiguousarray(image),
        shifted,
        (SIDE, SIDE),
        flags=cv2.INTER_LINEAR,
        borderMode=border,
        borderValue=colour,
    )
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * float(np.linalg.norm(matrix[:, 0]))
    middle = middle @ matrix[:, :2].T + matrix[:, 2]
    return part, np.hstack([middle - half, middle + half]), points @ matrix[:, :2].T + matrix[:, 2]


def _visible_share(box: Array, window: tuple[int, int, int, int]) -> float:
    inside = np.clip(box, [window[0], window[1]] * 2, [window[2], window[3]] * 2)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return float((inside[2] - inside[0]) * (inside[3] - inside[1]) / max(area, 1e-6))
