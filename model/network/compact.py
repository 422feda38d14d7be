"""Weights of a byte each: matrices as integers of eight bits with a scale for every row, for files that travel."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

SCALE = ".scale"
_LARGEST = 127
# Below, the rows' scales are most of the file.
_FEWEST = 1024


def compact(tensors: Mapping[str, Tensor], keep: Collection[str] = ()) -> dict[str, Tensor]:
    """Return matrices and kernels as int8 with `<name>.scale` (rows,) float32 beside each; the rest in float16.

    Rows are those of the first axis; a weight is off by at most 1/254 of the largest in its row. `keep` names tensors
    that stay as they are, as integers do.
    """
    small: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name in keep or not value.is_floating_point():
            small[name] = value
        elif value.ndim < 2 or value.numel() < _FEWEST:
            small[name] = value.to(torch.float16)
        else:
            rows = value.float().flatten(1)
            scale = (rows.abs().amax(1) / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
            small[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(value.shape)
            small[name + SCALE] = scale
    return small


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `compact`: float32 where there is a scale; tensors without one are returned as they are."""
    full: dict[str, Tensor] = {}
    for name, value in tensors.items():
        scale = tensors.get(name + SCALE)
        if scale is not None and value.dtype == torch.int8:
            full[name] = value.float() * scale.reshape(-1, *[1] * (value.ndim - 1))
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in tensors):
            full[name] = value
    return full
