"""Pretrain the embedding projection before anchoring: its tokens learn to predict the latents around the face.

Compared with the bias of the first layer, an embedding of unit length has little effect: all people would start with
almost the same tokens, and anchoring would learn from CLIP's states alone. So the first layer is scaled up, and the
tokens are trained to predict latents through a linear map that is discarded afterwards. The UNet is not used: a step of
256 photos costs a tenth of an anchoring step of 16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.face_encoder import FaceEncoder
from model.training.records import FaceRecords, Records
from model.training.seeded_draws import generator, positions

BATCH = 256
RATE = 1e-3
DROPOUT = 0.1
# Side of the grid on which latents are sampled, and width of its area as a multiple of the aligned face's.
_SIDE, _REACH = 12, 1.5
_SAMPLE = 4096

LatentsAndFaces = tuple[Records, FaceRecords]


def latents_around_faces(latents: Tensor, alignments: Tensor) -> Tensor:
    """Return latents (B, C, h, w) sampled on a 12 x 12 grid aligned with the face, (B, C · 144), 0 outside the photo.

    `alignments` (B, 2, 3) are from `alignment`.
    """
    wider = torch.cat([alignments[:, :, :2] * _REACH, alignments[:, :, 2:]], dim=2)
    grid = F.affine_grid(wider, [len(latents), latents.shape[1], _SIDE, _SIDE], align_corners=False)
    return F.grid_sample(latents, grid, align_corners=False).flatten(1)


def pretrain_projection(
    encoder: FaceEncoder,
    training: LatentsAndFaces,
    probing: LatentsAndFaces,
    *,
    steps: int,
    seed: int,
    accelerator: Any,
) -> float:
    """Train `encoder.proj` and `encoder.norm` for `steps` steps of 256 photos, in float32, equally in every process.

    Return the share of the variance of the latents around the faces of `probing` that the tokens explain.
    """
    from tqdm import tqdm

    device, width, count = accelerator.device, encoder.proj[0].in_features, len(training[0])
    with torch.no_grad():
        encoder.proj[0].weight.mul_(width**0.5)
    targets = _targets(training, _sample_rows(count))
    mean, scale = targets.mean(0), targets.std().clamp_min(1e-6)
    readout = nn.Linear(encoder.tokens * encoder.width, len(mean)).to(device)
    parameters = [*encoder.proj.parameters(), *encoder.norm.parameters(), *readout.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=0.1)

    def error(photos: LatentsAndFaces, rows: np.ndarray, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        true = ((_targets(photos, rows) - mean) / scale).to(device)
        tokens = encoder.norm(encoder.proj(embeddings.to(device)).unflatten(-1, (encoder.tokens, encoder.width)))
        return (readout(tokens.flatten(1)) - true).square(), true.square()

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
            rows = _sample_rows(len(probing[0]))
            wrong, whole = error(probing, rows, probing[1].embeddings(rows))
            explained = float(1 - wrong.sum() / whole.sum())
        bar.set_postfix(explained=f"{explained:.3f}")
    return explained


def _sample_rows(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, _SAMPLE).astype(np.int64))


def _targets(photos: LatentsAndFaces, rows: np.ndarray) -> Tensor:
    latents, faces = photos
    return latents_around_faces(latents.tensor(rows), faces.alignments(rows))
