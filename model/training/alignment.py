"""Where the picture that a recogniser sees lies in a photo, and that picture, so that gradients pass through it."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from model.face.face_geometry import ARCFACE_TEMPLATE, similarity

_TEMPLATE_SIDE = 112


def keypoint_shares(keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return key points (5, 2), given in pixels, as shares of the picture (a pixel's centre is half a pixel in)."""
    return ((keypoints + 0.5) / np.array([width, height])).astype(np.float32)


def alignment(points: np.ndarray) -> np.ndarray:
    """Return (2, 3) float32 for `affine_grid`: from the recogniser's picture to a square photo.

    `points` (5, 2) are the face's key points as `keypoint_shares` gives them. What is cut out is what insightface's
    `norm_crop` does for sides that are multiples of 112.
    """
    template = keypoint_shares(ARCFACE_TEMPLATE, _TEMPLATE_SIDE, _TEMPLATE_SIDE)
    # The best fit from photo to template, as norm_crop has it: the one back would shrink what does not fit.
    there = similarity(points, template)
    linear = np.linalg.pinv(there[:, :2])
    shift = -linear @ there[:, 2]
    # From shares, 0 … 1, to affine_grid's −1 … 1.
    return np.hstack([linear, (2 * shift + linear.sum(1) - 1)[:, None]]).astype(np.float32)


def aligned_faces(pictures: Tensor, alignments: Tensor, side: int) -> Tensor:
    """Return the faces (B, 3, side, side) of `pictures` (B, 3, S, S), both in −1 … 1, black outside of the picture."""
    grid = F.affine_grid(alignments, [len(alignments), 3, side, side], align_corners=False)
    return F.grid_sample(pictures.float() + 1, grid, align_corners=False) - 1
