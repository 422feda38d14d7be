"""Cut the aligned face that a recogniser takes out of a photo, so that gradients pass through."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from model.face.face_geometry import ARCFACE_TEMPLATE, similarity

_TEMPLATE_SIDE = 112


def normalised_keypoints(keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """Convert key points (5, 2) from pixels, whose centres are whole numbers, to 0 … 1 of the photo's sides."""
    return ((keypoints + 0.5) / np.array([width, height])).astype(np.float32)


def alignment(points: np.ndarray) -> np.ndarray:
    """Return the matrix (2, 3) float32 that maps the aligned face to a square photo, as `affine_grid` takes it.

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
    """Cut faces (B, 3, side, side) out of `pictures` (B, 3, S, S), both in −1 … 1; black outside the pictures."""
    grid = F.affine_grid(alignments, [len(alignments), 3, side, side], align_corners=False)
    return F.grid_sample(pictures.float() + 1, grid, align_corners=False) - 1
