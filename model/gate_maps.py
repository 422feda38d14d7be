"""Averages the gates of all layers and steps into one map a picture."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class GateMaps:
    """Running mean of gate maps at latent size.

    `pending` is the list the attention processors append to; `fold` adds what it holds to the mean, so that no more
    than one step's maps are kept. With `guided` the first half of every batch is unconditional and left out.
    """

    def __init__(self, rows: int, columns: int, guided: bool) -> None:
        self.size = (rows, columns)
        self.guided = guided
        self.pending: list[Tensor] = []
        self._total: Tensor | None = None
        self._count = 0

    def fold(self) -> None:
        """Add the pending maps to the mean and forget them."""
        for gate in self.pending:
            wanted = gate[len(gate) // 2 :] if self.guided else gate
            scaled = F.interpolate(wanted[:, None], self.size, mode="bilinear", align_corners=False)[:, 0]
            self._total = scaled if self._total is None else self._total + scaled
            self._count += 1
        self.pending.clear()

    def mean(self) -> np.ndarray:
        """Return (B, rows, columns) float32; ValueError where no gate was computed."""
        self.fold()
        if self._total is None:
            raise ValueError("no gate maps: the gate was off, or the identity scale 0")
        return (self._total / self._count).to(torch.float32).cpu().numpy()
