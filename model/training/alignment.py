"""The aligned face that a recogniser takes, cut out of a photo so that gradients pass through it."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from model.face.face_geometry import ARCFACE_TEMPLATE, similarity

_TEMPLATE_SIDE = 112


def normalised_keypoints(keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return key points (5, 2), given in pixels, in 0 … 1 of the photo's width and height (pixel centres at 0.5)."""
    return ((keypoints + 0.5) / np.array([width, height])).astype(np.float32)


def alignment(points: np.ndarray) -> np.ndarray:
    """Return (2, 3) float32 for `affine_grid`: from the aligned face to a square photo.

    `points` (5, 2) are the face's `normalised_keypoints`. The aligned face is that of insightface's `norm_crop` for
    sides that are multiples of 112.
    """
    template = normalised_keypoints(ARCFACE_TEMPLATE, _TEMPLATE_SIDE, _TEMPLATE_SIDE)
    # Fitted from photo to template, as norm_crop does: the fit from template to photo has another scale.
    forward = similarity(points, template)
    linear = np.linalg.pinv(forward[:, :2])
    shift = -linear @ forward[:, 2]
    # From 0 … 1 to affine_grid's −1 … 1.
    return np.hstack([linear, (2 * shift + linear.sum(1) - 1)[:, None]]).astype(np.float32)


def aligned_faces(pictures: Tensor, alignments: Tensor, side: int) -> Tensor:
    """Return the faces (B, 3, side, side) of `pictures` (B, 3, S, S), both in −1 … 1, black outside the picture."""
    grid = F.affine_grid(alignments, [len(alignments), 3, side, side], align_corners=False)
    return F.grid_sample(pictures.float() + 1, grid, align_corners=False) - 1
