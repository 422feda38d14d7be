"""The rate of a device on one large matrix product, to which a training step is compared."""

from __future__ import annotations

import time

import torch

from benchmarks.measure import synchronise


def matrix_rate(device: torch.device, dtype: torch.dtype, *, side: int | None = None, calls: int = 8) -> float:
    """Return the best rate, in operations per second, of `calls` + 1 products of two `side` × `side` matrices."""
    side = side or (8192 if device.type == "cuda" else 2048)
    rng = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, side, generator=rng).to(device, dtype) for _ in range(2))
    best = 0.0
    for _ in range(calls + 1):
        synchronise(device)
        start = time.perf_counter()
        left @ right
        synchronise(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best
