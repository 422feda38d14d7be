"""The recogniser that judges: another architecture, seed, loss and treatment of photos than the one that conditions.

Its margin is on the angle (ArcFace, Deng et al. 2019), it pools instead of keeping places apart, and it is trained
with mirrored, greyed and partly hidden faces.
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

from model.foundation.augment import centred, degraded
from model.foundation.export import export_onnx
from model.foundation.layers import conv
from model.foundation.loop import fit, has_bfloat16
from model.foundation.people import People
from model.foundation.recogniser import SIZE, aligned, measure

WIDTH = 256
BATCH = 64
RATE = 3e-3
SCALE = 20.0
MARGIN = 0.3

Array = npt.NDArray[Any]


class Judge(nn.Module):
    """(B, 3, 112, 112), (x − 127.5) / 127.5 RGB, to (B, 256) of unit norm."""

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
        # Where something is seen matters little to who it is, but rows of a face do: they are pooled apart.
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(160 * 8, WIDTH, bias=False), nn.BatchNorm1d(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return unit-norm embeddings."""
        features = self.body(x)
        rows = features.mean(3)
        whole = features.amax((2, 3))
        return F.normalize(self.head(torch.cat([rows.flatten(1), whole], 1)))


class AngularMargin(nn.Module):
    """Cross-entropy over people on cosines, with a margin added to the angle to the true person's centre."""

    def __init__(self, network: Judge, people: int) -> None:
        super().__init__()
        self.network = network
        self.centres = nn.Parameter(torch.randn(people, WIDTH) * 0.05)

    def forward(self, images: Tensor, identity: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Return the loss and the share of `images` whose nearest centre is their own."""
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
            found = self.network(images)
        cosine = F.linear(F.normalize(found.float()), F.normalize(self.centres)).clamp(-1 + 1e-5, 1 - 1e-5)
        own = cosine.gather(1, identity[:, None])
        moved = torch.cos(torch.acos(own) + margin)
        right = (cosine.detach().argmax(1) == identity).float().mean()
        return F.cross_entropy(cosine.scatter(1, identity[:, None], moved) * SCALE, identity), right


def _treated(image: Array, rng: np.random.Generator) -> Array:
    """Mirror a share of the aligned faces, grey some, hide a patch of some."""
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


def train(people: People, folder: Path, *, steps: int = 1000, seed: int = 77) -> tuple[Judge, dict[str, float]]:
    """Train the judge; return it and how it tells held-out people apart."""
    torch.manual_seed(seed)
    rows = people.train
    loss_of = AngularMargin(Judge(), people.first_held_out).to(memory_format=torch.channels_last)

    def step(number: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.choice(rows, BATCH, replace=False)
        photos = [degraded(people.photos[row], rng, shrink=0.6, sides=(72, 64, 56, 40)) for row in chosen]
        crops = [
            _treated(aligned(photo, people.keypoints[row], rng, jitter=0.12), rng)
            for photo, row in zip(photos, chosen, strict=True)
        ]
        identity = torch.from_numpy(np.asarray(people.identity[chosen], np.int64))
        margin = MARGIN * min(max(number / steps - 0.2, 0.0) / 0.5, 1.0)
        loss, right = loss_of(centred(np.stack(crops)), identity, margin)
        return loss, {"right": float(right)}

    loss_of.load_state_dict(fit(loss_of, step, folder, name="judge", steps=steps, rate=RATE, seed=seed))
    network = loss_of.network.eval()
    return network, measure(network, people)


def export(network: Judge, file: Path) -> None:
    """Write the network as ONNX: embeddings of any number of faces."""
    example = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    export_onnx(network, example, file, input_name="input", output_names=["embedding"], dynamic={0: "batch"})
