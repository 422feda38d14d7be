"""Quantise weights to int8 with one scale per row, for smaller files."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

SCALE = ".scale"
_INT8_MAX = 127
# Smaller tensors are stored in float16: their scales would take too much space.
_MIN_ELEMENTS = 1024


def quantise(tensors: Mapping[str, Tensor], keep: Collection[str] = ()) -> dict[str, Tensor]:
    """Return matrices and kernels as int8, each with `<name>.scale` (rows,) float32, and the rest in float16.

    Rows are along the first axis; the error of a weight is at most 1/254 of the largest weight in its row. Integers and
    the tensors named in `keep` are unchanged.
    """
    quantised: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name in keep or not value.is_floating_point():
            quantised[name] = value
        elif value.ndim < 2 or value.numel() < _MIN_ELEMENTS:
            quantised[name] = value.to(torch.float16)
        else:
            rows = value.float().flatten(1)
            scale = (rows.abs().amax(1) / _INT8_MAX).clamp(min=torch.finfo(torch.float32).tiny)
            quantised[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(value.shape)
            quantised[name + SCALE] = scale
    return quantised


def dequantise(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `quantise`: return float32 for tensors with a scale, others unchanged."""
    restored: dict[str, Tensor] = {}
    for name, value in tensors.items():
        scale = tensors.get(name + SCALE)
        if scale is not None and value.dtype == torch.int8:
            restored[name] = value.float() * scale.reshape(-1, *[1] * (value.ndim - 1))
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in tensors):
            restored[name] = value
    return restored
