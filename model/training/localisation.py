"""The localisation loss: attention to the word of a facial part is where the part is (ConsistentID, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-5
# A region that covers all but this share of the positions has no outside: what is left of it is rounding.
_LEAST_OUTSIDE = 1e-4


def localisation_loss(maps: Sequence[Tensor], masks: Tensor, shown: Tensor, *, normalised: bool = True) -> Tensor:
    """Return the mean over layers, a float32 scalar: attention to parts outside of their regions, less that inside.

    `maps`: one (B, heads, N, R) for each layer, N positions of a square (see text_maps.py); `masks` (B, R, H, H) in
    [0, 1] of the picture; `shown` (B, R) bool: the parts that count. `normalised`: each map is divided by its highest
    value. Between −1 and 1 then; 0 without a part. Raise ValueError for positions that are no square, and without maps.
    """
    if not maps:
        raise ValueError("no attention maps: the localisation loss needs at least one layer")
    return torch.stack([_layer_loss(one, masks, shown, normalised) for one in maps]).mean()


def _layer_loss(found: Tensor, masks: Tensor, shown: Tensor, normalised: bool) -> Tensor:
    side = math.isqrt(found.shape[2])
    if side * side != found.shape[2]:
        raise ValueError(f"{found.shape[2]} positions: the localisation loss needs square pictures")
    # (B, 1, N, R): soft values, as a position covers many pixels.
    inside = F.interpolate(masks.float(), (side, side), mode="bilinear", antialias=True).flatten(2).mT[:, None]
    outside = 1 - inside
    found = found.float()
    if normalised:
        found = found / (found.amax(dim=2, keepdim=True) + _EPSILON)
    room = outside.sum(dim=2)
    beside = (found * outside).sum(dim=2) / (room + _EPSILON) * (room > _LEAST_OUTSIDE * side * side)
    within = (found * inside).sum(dim=2) / (inside.sum(dim=2) + _EPSILON)
    counted = shown[:, None].to(found.dtype)
    each = ((beside - within) * counted).sum(dim=-1) / (counted.sum(dim=-1) + _EPSILON)
    return each.mean()
