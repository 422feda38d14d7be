"""Before anchoring: the projection of the embedding learns what the faces look like that it is made of.

A vector of unit length hardly moves the first layer beside its bias: every person begins with nearly the same tokens,
and anchoring learns from CLIP's states alone. Here the first layer is put on a scale at which its input counts, and
the projected tokens learn to tell, by a linear map that is thrown away, the latents around the face. No UNet takes
part: a step of 256 photos costs a tenth of one of 16 in anchoring.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.face_encoder import FaceEncoder
from model.training.encode import FaceRecords, Records
from model.training.schedule import generator, positions

BATCH = 256
RATE = 1e-3
DROPOUT = 0.1
_SIDE, _REACH = 12, 1.5
"""Latents are taken on a grid of this side over the recogniser's picture and, with it, what lies around it."""
_SAMPLE = 4096

Known = tuple[Records, FaceRecords]
"""The latents of photos, and what is known of the faces in them."""


def around_faces(latents: Tensor, alignments: Tensor) -> Tensor:
    """Return (B, C · 144): latents (B, C, h, w) on a grid that lies on every face alike; zero outside of the photo.

    `alignments` (B, 2, 3) as `alignment` gives them.
    """
    wider = torch.cat([alignments[:, :, :2] * _REACH, alignments[:, :, 2:]], dim=2)
    grid = F.affine_grid(wider, [len(latents), latents.shape[1], _SIDE, _SIDE], align_corners=False)
    return F.grid_sample(latents, grid, align_corners=False).flatten(1)


def teach_projection(
    encoder: FaceEncoder, training: Known, probing: Known, *, steps: int, seed: int, accelerator: Any
) -> float:
    """Train `encoder.proj` and `encoder.norm` for `steps` steps of 256 photos, in float32, every process alike.

    Returns the share of the variance of the latents around the faces of `probing` that the projection then explains.
    """
    from tqdm import tqdm

    device, width, count = accelerator.device, encoder.proj[0].in_features, len(training[0].rows)
    with torch.no_grad():
        encoder.proj[0].weight.mul_(width**0.5)
    known = _looks(training, _some(count))
    mean, scale = known.mean(0), known.std().clamp_min(1e-6)
    reader = nn.Linear(encoder.tokens * encoder.width, len(mean)).to(device)
    parameters = [*encoder.proj.parameters(), *encoder.norm.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=0.1)

    def error(photos: Known, rows: np.ndarray, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        true = ((_looks(photos, rows) - mean) / scale).to(device)
        tokens = encoder.norm(encoder.proj(embeddings.to(device)).unflatten(-1, (encoder.tokens, encoder.width)))
        return (reader(tokens.flatten(1)) - true).square(), true.square()

    with tqdm(total=steps, desc="projection", unit="step", disable=not accelerator.is_main_process) as bar:
        for step in range(steps):
            rows = positions(seed, step, BATCH, count)
            kept = torch.from_numpy(generator(seed, "projection", step).random((BATCH, width)) >= DROPOUT)
            wrong, _ = error(training, rows, training[1].embeddings(rows) * kept / (1 - DROPOUT))
            optimizer.zero_grad()
            wrong.mean().backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            rate.step()
            bar.update()
        with torch.no_grad():
            rows = _some(len(probing[0].rows))
            wrong, whole = error(probing, rows, probing[1].embeddings(rows))
            explained = float(1 - wrong.sum() / whole.sum())
        bar.set_postfix(explained=f"{explained:.3f}")
    return explained


def _some(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, _SAMPLE).astype(np.int64))


def _looks(photos: Known, rows: np.ndarray) -> Tensor:
    latents, faces = photos
    return around_faces(latents.tensor(rows), faces.alignments(rows))
