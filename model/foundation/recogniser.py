"""The recogniser that conditions the model: aligned faces of 112 px to 512 numbers, by a margin loss (CosFace, 2018).

Its file is what insightface calls an ArcFace network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.face.face_geometry import ARCFACE_TEMPLATE, similarity
from model.foundation.augment import centred, degraded, resampled
from model.foundation.export import export_onnx
from model.foundation.layers import Residual, conv
from model.foundation.loop import fit
from model.foundation.people import People

SIZE = 112
BATCH = 64
RATE = 3e-3
SCALE = 24.0
MARGIN = 0.35

Array = npt.NDArray[Any]


class Recogniser(nn.Module):
    """(B, 3, 112, 112), (x − 127.5) / 127.5 RGB, to (B, 512)."""

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
        """Return embeddings; their length means nothing."""
        return self.body(x)


class MarginLoss(nn.Module):
    """Cross-entropy over people on cosines, with the true person's cosine lowered by a margin."""

    def __init__(self, network: nn.Module, width: int, people: int) -> None:
        super().__init__()
        self.network = network
        self.centres = nn.Parameter(torch.randn(people, width) * 0.05)

    def forward(self, images: Tensor, identity: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Return the loss and the share of (B, ...) `images` whose nearest centre is their own."""
        cosine = F.linear(F.normalize(self.network(images)), F.normalize(self.centres))
        right = (cosine.detach().argmax(1) == identity).float().mean()
        lowered = cosine - margin * F.one_hot(identity, cosine.shape[1])
        return F.cross_entropy(lowered * SCALE, identity), right


def aligned(image: Array, keypoints: Array, rng: np.random.Generator | None = None, jitter: float = 0.12) -> Array:
    """Return the (112, 112, 3) face of `image` on insightface's template; `keypoints` (5, 2) in pixels.

    With `rng` the key points err by up to `jitter`, a share of the distance between eyes and mouth, as a detector does.
    """
    if rng is not None:
        span = float(np.linalg.norm(keypoints[:2].mean(0) - keypoints[3:].mean(0)))
        keypoints = keypoints + rng.standard_normal((5, 2)) * jitter * span * rng.random()
    return cv2.warpAffine(image, similarity(keypoints, ARCFACE_TEMPLATE), (SIZE, SIZE), flags=cv2.INTER_LINEAR)


def train(people: People, folder: Path, *, steps: int = 1500, seed: int = 0) -> tuple[Recogniser, dict[str, float]]:
    """Train the recogniser; return it and how it tells held-out people apart."""
    torch.manual_seed(seed)
    rows = people.train
    loss_of = MarginLoss(Recogniser(), 512, people.first_held_out).to(memory_format=torch.channels_last)

    def step(number: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.choice(rows, BATCH, replace=False)
        crops = [aligned(degraded(people.photos[row], rng), people.keypoints[row], rng) for row in chosen]
        identity = torch.from_numpy(np.asarray(people.identity[chosen], np.int64))
        # A margin from the start keeps the network from learning anything.
        margin = MARGIN * min(max(number / steps - 0.1, 0.0) / 0.5, 1.0)
        loss, right = loss_of(centred(np.stack(crops)), identity, margin)
        return loss, {"right": float(right)}

    loss_of.load_state_dict(fit(loss_of, step, folder, name="recogniser", steps=steps, rate=RATE, seed=seed))
    network = loss_of.network.eval()
    assert isinstance(network, Recogniser)
    return network, measure(network, people)


def measure(network: nn.Module, people: People) -> dict[str, float]:
    """Return AUC and mean cosines of all pairs of held-out photos, at 128 px and after a round trip through 64."""
    figures: dict[str, float] = {}
    rows = people.held_out
    identity = np.asarray(people.identity[rows])
    for name, side in (("128", 0), ("64", 64)):
        crops = [
            aligned(resampled(people.photos[row], side) if side else people.photos[row], people.keypoints[row])
            for row in rows
        ]
        with torch.no_grad():
            found = torch.cat([F.normalize(network(centred(part))) for part in np.array_split(np.stack(crops), 16)])
        figures |= {f"{key}_{name}": value for key, value in verification(found.numpy(), identity).items()}
    return figures


def verification(embeddings: Array, identity: Array) -> dict[str, float]:
    """Return `auc`, `same` and `different` (mean cosines) of all pairs of (N, d) unit embeddings of (N,) people."""
    upper = np.triu_indices(len(identity), 1)
    cosine = (embeddings @ embeddings.T)[upper]
    same = (identity[:, None] == identity[None])[upper]
    ranks = np.empty(len(cosine))
    ranks[np.argsort(cosine, kind="stable")] = np.arange(1, len(cosine) + 1)
    positive = int(same.sum())
    auc = (ranks[same].sum() - positive * (positive + 1) / 2) / (positive * (len(same) - positive))
    return {"auc": float(auc), "same": float(cosine[same].mean()), "different": float(cosine[~same].mean())}


def export(network: Recogniser, file: Path) -> None:
    """Write the network as ONNX: embeddings of any number of faces, as insightface loads it."""
    example = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    export_onnx(network, example, file, input_name="input", output_names=["embedding"], dynamic={0: "batch"})
