"""The recogniser that conditions the model: aligned faces of 112 px to 512 numbers, with a margin loss (CosFace, 2018).

Its file has the layout of insightface's ArcFace networks.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.face.face_geometry import ARCFACE_TEMPLATE, similarity
from model.foundation.augment import degraded, held_out, jittered, normalised
from model.foundation.layers import Residual, conv
from model.foundation.people import Array, People

SIZE = 112
BATCH = 64
RATE = 3e-3
SCALE = 24.0
MARGIN = 0.35
OUTPUTS = ("embedding",)


class Recogniser(nn.Module):
    """Map (B, 3, 112, 112) RGB, (x − 127.5) / 127.5, to (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 6, 4, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            conv(32, 64, stride=2),
            Residual(64),
            conv(64, 128, stride=2),
            Residual(128),
            conv(128, 40, kernel=1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(40 * 49, 512, bias=False),
            nn.BatchNorm1d(512),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings, not normalised."""
        return self.body(x)


class MarginLoss(nn.Module):
    """Cross-entropy over people on cosines times `scale`, with a margin on the true person's cosine."""

    def __init__(self, network: nn.Module, width: int, people: int, scale: float = SCALE) -> None:
        super().__init__()
        self.network, self.scale = network, scale
        self.centres = nn.Parameter(torch.randn(people, width) * 0.05)

    def forward(self, images: Tensor, identity: Tensor, margin: float) -> dict[str, Tensor]:
        """Return the loss of (B, ...) `images` and `right`, the share nearest to the centre of the true person."""
        cosine = F.linear(F.normalize(self.embed(images)), F.normalize(self.centres))
        right = (cosine.detach().argmax(1) == identity).float().mean()
        return {
            "loss": F.cross_entropy(self.with_margin(cosine, identity, margin) * self.scale, identity),
            "right": right,
        }

    def embed(self, images: Tensor) -> Tensor:
        """Return the network's embeddings."""
        return self.network(images)

    def with_margin(self, cosine: Tensor, identity: Tensor, margin: float) -> Tensor:
        """Return (B, people) cosines, lowered by `margin` for the true person."""
        return cosine - margin * F.one_hot(identity, cosine.shape[1])


def aligned(image: Array, keypoints: Array) -> Array:
    """Return the (112, 112, 3) face of `image`, aligned as by insightface; `keypoints` (5, 2) in pixels."""
    return cv2.warpAffine(image, similarity(keypoints, ARCFACE_TEMPLATE), (SIZE, SIZE), flags=cv2.INTER_LINEAR)


def build(people: People) -> MarginLoss:
    """Return the untrained network in its loss module."""
    return MarginLoss(Recogniser(), 512, people.first_held_out)


def losses(
    loss_of: MarginLoss, people: People, rng: np.random.Generator, batch: int, progress: float
) -> dict[str, Tensor]:
    """Return the loss and the identification accuracy of a batch."""
    chosen = rng.choice(people.train, batch, replace=False)
    crops = [aligned(degraded(people.photos[row], rng), jittered(people.keypoints[row], rng)) for row in chosen]
    identity = torch.from_numpy(np.asarray(people.identity[chosen], np.int64))
    # With a margin from the first step the network learns nothing.
    return loss_of(normalised(np.stack(crops)), identity, MARGIN * min(max(progress - 0.1, 0.0) / 0.5, 1.0))


@torch.no_grad()
def measure(network: nn.Module, people: People) -> dict[str, float]:
    """Return AUC and mean cosines of all pairs of held-out photos, see `augment.held_out`."""
    figures: dict[str, float] = {}
    identity = np.asarray(people.identity[people.held_out])
    for name, crops in held_out(people, lambda photo, row: aligned(photo, people.keypoints[row])):
        found = torch.cat([F.normalize(network(normalised(part))) for part in np.array_split(crops, 16)])
        figures |= {f"{key}_{name}": value for key, value in verification(found.numpy(), identity).items()}
    return figures


def verification(embeddings: Array, identity: Array) -> dict[str, float]:
    """Return `auc`, `same` and `different` (mean cosines) of all pairs of (N, d) unit embeddings; `identity` (N,)."""
    from sklearn.metrics import roc_auc_score

    upper = np.triu_indices(len(identity), 1)
    cosine = (embeddings @ embeddings.T)[upper]
    same = (identity[:, None] == identity[None])[upper]
    auc = float(roc_auc_score(same, cosine))
    return {"auc": auc, "same": float(cosine[same].mean()), "different": float(cosine[~same].mean())}
