"""The 68-landmark network: a square around the face box, 64 px, to 68 points in shares of the square."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.foundation.augment import centred, degraded, resampled
from model.foundation.export import export_onnx
from model.foundation.layers import Residual, conv
from model.foundation.loop import fit
from model.foundation.people import People

SIZE = 64
BOX_SCALE = 1.4
MEAN = SCALE = 127.0
BATCH = 64
RATE = 3e-3

Array = npt.NDArray[Any]


class Landmarker(nn.Module):
    """(B, 3, 64, 64), (x − 127) / 127 RGB, to (B, 136): x, y of 68 points in [0, 1] of the square."""

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
    """Return the (64, 64, 3) square around `box` (x0 y0 x1 y1 in pixels) and the (68, 2) points in shares of it.

    With `rng`, the box is moved by up to 8 %, scaled by up to 15 % and turned by up to 12 degrees.
    """
    side = float(max(box[2] - box[0], box[3] - box[1])) * BOX_SCALE
    centre = (box[:2] + box[2:]) / 2
    angle = 0.0
    if rng is not None:
        centre = centre + rng.uniform(-0.08, 0.08, 2) * side
        side *= float(rng.uniform(0.85, 1.18))
        angle = float(np.radians(rng.uniform(-12, 12))) if rng.random() < 0.5 else 0.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # Edges, not pixel centres, are where 0 and 1 are: half a pixel off before and after.
    matrix = np.hstack([turn, (side / 2 - turn @ centre)[:, None]]) * (SIZE / side)
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    picture = cv2.warpAffine(image, shifted, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    return picture, (landmarks @ matrix[:, :2].T + matrix[:, 2]) / SIZE


def train(people: People, folder: Path, *, steps: int = 1600, seed: int = 0) -> tuple[Landmarker, dict[str, float]]:
    """Train the landmarker; return it and its errors on held-out people."""
    torch.manual_seed(seed)
    network = Landmarker().to(memory_format=torch.channels_last)
    rows = people.train

    def step(number: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        pairs = [
            square(degraded(people.photos[row], rng), people.boxes[row], people.landmarks[row], rng)
            for row in rng.choice(rows, BATCH)
        ]
        images = centred(np.stack([image for image, _ in pairs]), MEAN, SCALE)
        true = torch.from_numpy(np.stack([points for _, points in pairs]).reshape(BATCH, 136)).float()
        error = (network(images) - true).abs()
        # Beyond the absolute error, so that the many small ones keep counting.
        loss = torch.log1p(error / 0.01).mean() + 5 * error.mean()
        return loss, {"error": float(error.detach().mean())}

    network.load_state_dict(fit(network, step, folder, name="landmarks", steps=steps, rate=RATE, seed=seed))
    network.eval()
    return network, measure(network, people)


@torch.no_grad()
def measure(network: nn.Module, people: People) -> dict[str, float]:
    """Return normalised mean errors of held-out people: by the distance of the outer eye corners of a frontal face
    (the median one), and by √(box area), at 128 px and after a round trip through 64."""
    figures = {}
    rows = people.held_out
    boxes = np.asarray(people.boxes[rows])
    for name, side in (("128", 0), ("64", 64)):
        found, true, sides = [], [], []
        for row in rows:
            image = resampled(people.photos[row], side) if side else people.photos[row]
            picture, points = square(image, people.boxes[row], people.landmarks[row])
            found.append(picture)
            true.append(points)
            box = people.boxes[row]
            sides.append(max(box[2] - box[0], box[3] - box[1]) * BOX_SCALE)
        images = centred(np.stack(found), MEAN, SCALE)
        points = torch.cat([network(part) for part in images.split(128)]).reshape(-1, 68, 2).numpy()
        error = np.linalg.norm(points - np.stack(true), axis=2).mean(1) * np.array(sides)
        area = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        eyes = np.linalg.norm(np.asarray(people.landmarks[rows][:, 36] - people.landmarks[rows][:, 45]), axis=1)
        front = np.asarray(people.pose[rows]) == 2
        figures[f"nme_box_{name}"] = float((error / area).mean())
        figures[f"nme_interocular_front_{name}"] = float((error / eyes)[front].mean())
    return figures


def export(network: Landmarker, file: Path) -> None:
    """Write the network as ONNX: 68 points of any number of squares."""
    example = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    export_onnx(network, example, file, input_name="input", output_names=["landmarks"], dynamic={0: "batch"})
