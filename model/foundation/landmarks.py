"""The 68-landmark network: from a 64 px square around the face box to 68 points in 0 … 1 of the square."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from model.foundation.augment import degraded, held_out, normalised
from model.foundation.layers import Residual, conv
from model.foundation.people import Array, People

SIZE = 64
BOX_SCALE = 1.4
MEAN = SCALE = 127.0
BATCH = 64
RATE = 3e-3
OUTPUTS = ("landmarks",)


class Landmarker(nn.Module):
    """Map (B, 3, 64, 64) RGB, (x − 127) / 127, to (B, 136): x, y of 68 points in [0, 1] of the square."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(3, 24, stride=2),
            conv(24, 24),
            conv(24, 56, stride=2),
            Residual(56),
            conv(56, 96, stride=2),
            Residual(96),
            conv(96, 128, stride=2),
        )
        self.points = nn.Linear(128 * 16, 136)
        # All points start at the middle of the square.
        nn.init.constant_(self.points.bias, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the points."""
        found: Tensor = self.points(self.features(x).flatten(1))
        return found


def square(image: Array, box: Array, landmarks: Array, rng: np.random.Generator | None = None) -> tuple[Array, Array]:
    """Return the (64, 64, 3) square around `box` (x0 y0 x1 y1 in pixels) and the points (68, 2) in 0 … 1 of it.

    With `rng`, the box is moved by up to 8 %, scaled by 0.85 to 1.18 and, half of the time, turned by up to 12 degrees.
    """
    side = float(max(box[2] - box[0], box[3] - box[1])) * BOX_SCALE
    centre = (box[:2] + box[2:]) / 2
    angle = 0.0
    if rng is not None:
        centre = centre + rng.uniform(-0.08, 0.08, 2) * side
        side *= float(rng.uniform(0.85, 1.18))
        angle = float(np.radians(rng.uniform(-12, 12))) if rng.random() < 0.5 else 0.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # 0 and 1 are the square's edges, but OpenCV counts pixel centres: shift by half a pixel before and after.
    matrix = np.hstack([turn, (side / 2 - turn @ centre)[:, None]]) * (SIZE / side)
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    picture = cv2.warpAffine(image, shifted, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    return picture, (landmarks @ matrix[:, :2].T + matrix[:, 2]) / SIZE


def build(people: People) -> Landmarker:
    """Return the untrained network."""
    return Landmarker()


def losses(
    network: nn.Module, people: People, rng: np.random.Generator, batch: int, progress: float
) -> dict[str, Tensor]:
    """Return the loss and the mean error of a batch."""
    pairs = [
        square(degraded(people.photos[row], rng), people.boxes[row], people.landmarks[row], rng)
        for row in rng.choice(people.train, batch)
    ]
    images = normalised(np.stack([image for image, _ in pairs]), MEAN, SCALE)
    true = torch.from_numpy(np.stack([points for _, points in pairs]).reshape(batch, 136)).float()
    error = (network(images) - true).abs()
    # The logarithm keeps weight on the many small errors.
    return {"loss": torch.log1p(error / 0.01).mean() + 5 * error.mean(), "error": error.mean()}


@torch.no_grad()
def measure(network: nn.Module, people: People) -> dict[str, float]:
    """Return mean errors on held-out people (see `augment.held_out`), relative to √(box area) and, for frontal faces,
    to the distance of the outer eye corners."""
    figures = {}
    rows = people.held_out
    boxes, landmarks = np.asarray(people.boxes[rows]), np.asarray(people.landmarks[rows])
    extent = boxes[:, 2:] - boxes[:, :2]
    front = np.asarray(people.pose[rows]) == 2

    def cut(photo: Array, row: int) -> tuple[Array, Array]:
        return square(photo, people.boxes[row], people.landmarks[row])

    true = np.stack([cut(people.photos[row], row)[1] for row in rows])
    for name, pictures in held_out(people, lambda photo, row: cut(photo, row)[0]):
        images = normalised(pictures, MEAN, SCALE)
        points = torch.cat([network(part) for part in images.split(128)]).reshape(-1, 68, 2).numpy()
        error = np.linalg.norm(points - true, axis=2).mean(1) * extent.max(1) * BOX_SCALE
        eyes = np.linalg.norm(landmarks[:, 36] - landmarks[:, 45], axis=1)
        figures[f"nme_box_{name}"] = float((error / np.sqrt(extent.prod(1))).mean())
        figures[f"nme_interocular_front_{name}"] = float((error / eyes)[front].mean())
    return figures
