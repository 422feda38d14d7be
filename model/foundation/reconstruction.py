"""Measure an autoencoder by what the judges read on its reconstructions, also of the smallest heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from model.foundation.people import Array, Groups, People
from model.foundation.pictures import as_tensor
from model.foundation.readers import FaceReader

SMALL = 0.31
"""Height of a face box as a share of the picture's: that of a head of two fifths of the height."""


@torch.no_grad()
def rebuilt(vae: Any, photos: Array) -> Array:
    """Return the reconstructions of photos (N, H, W, 3) uint8."""
    parts = []
    for start in range(0, len(photos), 64):
        found = vae.decode(vae.encode(as_tensor(photos[start : start + 64])).latent_dist.mode()).sample
        parts.append(((found.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def measure(vae: Any, people: People, photos: Array, reader: FaceReader) -> dict[str, float]:
    """Compare reconstructions of `photos`, those of single `people` at any size, with the originals."""
    points = list(np.asarray(people.keypoints) * (photos.shape[1] / people.photos.shape[1]))
    expression, pose = np.asarray(people.expression), np.asarray(people.pose)
    pictures = rebuilt(vae, photos)
    before, after = reader.read(list(photos), points), reader.read(list(pictures), points)
    original = float((before.expression == expression).mean())
    error = float(np.square((pictures.astype(np.float32) - photos) / 255).mean())
    return {
        "expression_original": original,
        "expression_rebuilt": float((after.expression == expression).mean()),
        "expression_kept": float((after.expression == expression).mean()) / max(original, 1e-9),
        "pose_rebuilt": float((after.pose == pose).mean()),
        "identity_cosine": float((before.identity * after.identity).sum(1).mean()),
        "psnr": float(-10 * np.log10(max(error, 1e-12))),
    }


def measure_small(vae: Any, sets: Sequence[Groups], reader: FaceReader) -> dict[str, float]:
    """Return how often the expression is read on heads of a third to two fifths of the height: `small_expression` of
    reconstructions and `small_expression_original` of the originals; `small_heads` is their number."""
    right: dict[str, list[Array]] = {"small_expression": [], "small_expression_original": []}
    for groups in sets:
        boxes = np.asarray(groups.boxes)
        small = (boxes[..., 3] - boxes[..., 1] <= SMALL * groups.photos.shape[1]) & (np.asarray(groups.identity) >= 0)
        picture, person = np.nonzero(small)
        if not len(picture):
            continue
        shown = np.unique(picture)
        place = np.searchsorted(shown, picture)
        photos = np.asarray(groups.photos[shown])
        points = list(np.asarray(groups.keypoints)[picture, person])
        true = np.asarray(groups.expression)[picture, person]
        for name, images in (("small_expression", rebuilt(vae, photos)), ("small_expression_original", photos)):
            right[name].append(reader.read(list(images[place]), points).expression == true)
    if not right["small_expression"]:
        return {"small_heads": 0.0}
    figures = {name: float(np.concatenate(values).mean()) for name, values in right.items()}
    return {**figures, "small_heads": float(sum(len(values) for values in right["small_expression"]))}
