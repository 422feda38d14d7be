"""The judge of expression (7 classes), pose (5 classes) and yaw. It never conditions the model."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.face.face_geometry import crop_matrix
from model.face.face_prompts import EXPRESSIONS, POSES
from model.foundation.augment import degraded, held_out, jittered, normalised
from model.foundation.layers import Residual, conv
from model.foundation.loop import bfloat16_is_faster
from model.foundation.people import Array, People

SIZE = 112
BATCH = 48
RATE = 2e-3
YAW_UNIT = 45.0
OUTPUTS = ("expression", "pose", "yaw")


class ExpressionPose(nn.Module):
    """Map (B, 3, 112, 112) RGB, (x − 127.5) / 127.5, to logits (B, 7) and (B, 5) in the order of `face_prompts`, and
    yaw (B, 1) in degrees."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 24, stride=2),
            conv(24, 48, stride=2),
            conv(48, 96, stride=2),
            Residual(96),
            conv(96, 128, stride=2),
            Residual(128),
            conv(128, 32, kernel=1),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(32 * 49, 128),
            nn.ReLU(),
        )
        self.expression = nn.Linear(128, len(EXPRESSIONS))
        self.pose = nn.Linear(128, len(POSES))
        self.yaw = nn.Linear(128, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return expression logits, pose logits and yaw."""
        features = self.body(x)
        return self.expression(features), self.pose(features), self.yaw(features) * YAW_UNIT


def crop(image: Array, keypoints: Array) -> Array:
    """Return the (112, 112, 3) crop of `face_geometry`, unmasked; `keypoints` (5, 2) in pixels."""
    return cv2.warpAffine(image, crop_matrix(keypoints) * SIZE, (SIZE, SIZE), flags=cv2.INTER_LINEAR)


def build(people: People) -> ExpressionPose:
    """Return the untrained network."""
    return ExpressionPose()


def losses(
    network: nn.Module, people: People, rng: np.random.Generator, batch: int, progress: float
) -> dict[str, Tensor]:
    """Return the loss and the expression accuracy of a batch."""
    chosen = rng.choice(people.train, batch, replace=False)
    crops = [crop(degraded(people.photos[row], rng), jittered(people.keypoints[row], rng)) for row in chosen]
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_faster()):
        answers = network(normalised(np.stack(crops)))
    expression, pose, yaw = (answer.float() for answer in answers)
    true = torch.from_numpy(np.asarray(people.expression[chosen], np.int64))
    loss = F.cross_entropy(expression, true, label_smoothing=0.05)
    loss = loss + 0.5 * F.cross_entropy(pose, torch.from_numpy(np.asarray(people.pose[chosen], np.int64)))
    angle = torch.from_numpy(np.asarray(people.angles[chosen, 0], np.float32))
    loss = loss + F.smooth_l1_loss(yaw[:, 0] / YAW_UNIT, angle / YAW_UNIT, beta=0.1)
    return {"loss": loss, "expression": (expression.argmax(1) == true).float().mean()}


@torch.no_grad()
def measure(network: nn.Module, people: People) -> dict[str, float]:
    """Return accuracies and the mean yaw error (degrees) on held-out people, see `augment.held_out`."""
    figures = {}
    rows = people.held_out
    for name, crops in held_out(people, lambda photo, row: crop(photo, people.keypoints[row])):
        answers = [network(normalised(part)) for part in np.array_split(crops, 16)]
        expression, pose, yaw = (torch.cat([answer[part] for answer in answers]).numpy() for part in range(3))
        figures[f"expression_{name}"] = float((expression.argmax(1) == people.expression[rows]).mean())
        figures[f"pose_{name}"] = float((pose.argmax(1) == people.pose[rows]).mean())
        figures[f"yaw_error_{name}"] = float(np.abs(yaw[:, 0] - people.angles[rows, 0]).mean())
    return figures
