"""The recogniser that judges identity; it is not the one that conditions the model.

Architecture, seed, loss and augmentation differ: the margin is on the angle (ArcFace, Deng et al. 2019), features are
pooled over positions, and training faces are also mirrored, grey or partly hidden.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.foundation.augment import degraded, jittered, normalised
from model.foundation.layers import conv
from model.foundation.loop import bfloat16_is_faster
from model.foundation.people import Array, People
from model.foundation.recogniser import SIZE, MarginLoss, aligned, measure  # noqa: F401 -- measured in the same way

WIDTH = 256
BATCH = 64
RATE = 3e-3
SCALE = 20.0
MARGIN = 0.3
OUTPUTS = ("embedding",)


class Judge(nn.Module):
    """Map (B, 3, 112, 112) RGB, (x − 127.5) / 127.5, to (B, 256) of unit norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.AvgPool2d(2),
            conv(3, 24, kernel=5, stride=2),
            conv(24, 48),
            nn.MaxPool2d(2),
            conv(48, 96),
            conv(96, 96),
            nn.MaxPool2d(2),
            conv(96, 160),
            conv(160, 160),
        )
        # Each row is pooled over its width: height in the face matters to identity, the horizontal position little.
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(160 * 8, WIDTH, bias=False), nn.BatchNorm1d(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return unit-norm embeddings."""
        features = self.body(x)
        rows = features.mean(3)
        whole = features.amax((2, 3))
        return F.normalize(self.head(torch.cat([rows.flatten(1), whole], 1)))


class AngularMargin(MarginLoss):
    """A loss with the margin added to the angle to the true person's centre."""

    def embed(self, images: Tensor) -> Tensor:
        """Return the network's embeddings, computed in bfloat16 where that is faster."""
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_faster()):
            return self.network(images).float()

    def with_margin(self, cosine: Tensor, identity: Tensor, margin: float) -> Tensor:
        """Return (B, people) cosines, with the angle to the true person widened by `margin` radians."""
        cosine = cosine.clamp(-1 + 1e-5, 1 - 1e-5)
        own = cosine.gather(1, identity[:, None])
        return cosine.scatter(1, identity[:, None], torch.cos(torch.acos(own) + margin))


def _augmented(image: Array, rng: np.random.Generator) -> Array:
    """Return the aligned face, randomly mirrored, greyed, or with a hidden patch."""
    if rng.random() < 0.5:
        image = image[:, ::-1]
    if rng.random() < 0.05:
        image = cv2.cvtColor(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.3:
        image = image.copy()
        height, width = rng.integers(12, 40, 2)
        y, x = rng.integers(0, SIZE - height), rng.integers(0, SIZE - width)
        image[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    return image


def build(people: People) -> AngularMargin:
    """Return the untrained network in its loss module."""
    return AngularMargin(Judge(), WIDTH, people.first_held_out, SCALE)


def losses(
    loss_of: AngularMargin, people: People, rng: np.random.Generator, batch: int, progress: float
) -> dict[str, Tensor]:
    """Return the loss and the identification accuracy of a batch."""
    chosen = rng.choice(people.train, batch, replace=False)
    photos = [degraded(people.photos[row], rng, shrink=0.6, sides=(72, 64, 56, 40)) for row in chosen]
    crops = [
        _augmented(aligned(photo, jittered(people.keypoints[row], rng)), rng)
        for photo, row in zip(photos, chosen, strict=True)
    ]
    identity = torch.from_numpy(np.asarray(people.identity[chosen], np.int64))
    return loss_of(normalised(np.stack(crops)), identity, MARGIN * min(max(progress - 0.2, 0.0) / 0.5, 1.0))
