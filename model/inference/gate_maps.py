"""Average the gates of all layers and steps into one map per picture, and overlay it as a heat map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class GateMaps:
    """Running mean of gate maps at latent size.

    The attention processors append to the list `pending`; `fold` adds its maps to the mean, so that only the maps of
    one step are in memory. With `guided`, the first half of every batch is unconditional and ignored.
    """

    def __init__(self, rows: int, columns: int, guided: bool) -> None:
        self.size = (rows, columns)
        self.guided = guided
        self.pending: list[Tensor] = []
        self._total: Tensor | None = None
        self._count = 0

    def fold(self) -> None:
        """Add the pending maps to the mean, and clear them."""
        for gate in self.pending:
            conditional = gate[len(gate) // 2 :] if self.guided else gate
            scaled = F.interpolate(conditional[:, None], self.size, mode="bilinear", align_corners=False)[:, 0]
            self._total = scaled if self._total is None else self._total + scaled
            self._count += 1
        self.pending.clear()

    def mean(self) -> np.ndarray:
        """Return the mean map of each picture, (B, rows, columns) float32; raise ValueError if no gate was computed."""
        self.fold()
        if self._total is None:
            raise ValueError("no gate maps: the gate was off, or the identity scale 0")
        return (self._total / self._count).to(torch.float32).cpu().numpy()


@dataclass
class WithGateMaps:
    """The common part of both outputs: `gate_maps` (B, h, w) of the latent's size, or None if not requested.

    A gate map, float32 in [0, 1], is the mean of the gates (before any boost) over all cross-attentions and denoising
    steps.
    """

    gate_maps: np.ndarray | None = None

    def heat_maps(self, opacity: float = 0.6) -> list[Any]:
        """Return the pictures (PIL) with their gate maps as overlays; raise ValueError without gate maps."""
        if self.gate_maps is None:
            raise ValueError("no gate maps: call the pipeline with return_gate_maps=True")
        return [heat_map(image, gate, opacity) for image, gate in zip(self.images, self.gate_maps, strict=True)]  # type: ignore[attr-defined]


def heat_map(picture: Any, gate: np.ndarray, opacity: float = 0.6) -> Any:
    """Return a picture (PIL, RGB) with its gate map as an overlay, transparent where the gate is 0.

    `picture`: PIL, or (H, W, 3) uint8 or float in [0, 1]; `gate`: (h, w) in [0, 1], of any size; `opacity`: that of the
    overlay where the gate is 1, from 0 to 1. Raise ValueError for another opacity or shape.
    """
    from matplotlib import colormaps
    from PIL import Image

    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity:g}: expected a number between 0 and 1")
    gate = np.asarray(gate, np.float32)
    if gate.ndim != 2:
        raise ValueError(f"gate map of shape {gate.shape}: expected (height, width), the map of one picture")
    if isinstance(picture, np.ndarray) and picture.dtype != np.uint8:
        picture = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    shown = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    large = Image.fromarray(np.clip(gate, 0, 1)).resize(shown.size, Image.Resampling.BILINEAR)
    heat = np.asarray(large)[..., None]
    colours = colormaps["inferno"](heat[..., 0])[..., :3] * 255
    weight = opacity * heat
    mixed = np.asarray(shown.convert("RGB")) * (1 - weight) + colours * weight
    return Image.fromarray(mixed.round().astype(np.uint8))
