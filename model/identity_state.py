"""Who is to be drawn, where, and how strongly: what one call tells every attention of the UNet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Box = Sequence[float]


@dataclass
class IdentityState:
    """The identity of one UNet call, passed as `cross_attention_kwargs={"identity": state}`.

    `tokens` (B, 4·P, D), one row a picture (with classifier-free guidance the unconditional half first, holding the
    null tokens); `boxes` (P, 4) shared by all pictures or (B, P, 4), y0 x0 y1 x1 in [0, 1], None for equal vertical
    slices; `gate` False is w = 1; `threshold` τ, None for the adapter's own; `scale` λ, a number, or (P,) or (B, P)
    one per person; `lora_scale` multiplies the LoRA; while `step` < `boost_steps` the gate is w + `boost` inside the
    boxes and w / (1 + `boost`) outside; `height`, `width` of the latent (None: square).
    `maps`: give a list, and every cross-attention appends its gate (B, h, w), float32 in
    [0, 1], as it is before the boost.
    `cache`: give an empty dict, for inference only, and keys, values and folded LoRA weights are computed once for
    all steps that use this object.
    """

    tokens: Tensor
    boxes: Any = None
    gate: bool = True
    threshold: float | None = None
    scale: Any = 1.0
    lora_scale: float = 1.0
    boost: float = 0.0
    boost_steps: int = 0
    step: int = 0
    height: int | None = None
    width: int | None = None
    maps: list[Tensor] | None = None
    cache: dict[Any, Any] | None = None
    _regions: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3:
            raise ValueError(f"identity tokens of shape {tuple(self.tokens.shape)}: expected (pictures, tokens, width)")
        if self.boxes is not None:
            # On the host: cells are counted there once per layer size, and nothing is read back from the device.
            self.boxes = torch.as_tensor(self.boxes, dtype=torch.float64, device="cpu")
            if self.boxes.ndim == 2:
                self.boxes = self.boxes[None]
            pictures = len(self.tokens)
            if self.boxes.ndim != 3 or self.boxes.shape[-1] != 4 or len(self.boxes) not in (1, pictures):
                raise ValueError(
                    f"boxes of shape {tuple(self.boxes.shape)}: expected (people, 4) or ({pictures}, people, 4)"
                )
        if not isinstance(self.scale, int | float):
            self.scale = torch.as_tensor(self.scale, dtype=torch.float32, device=self.tokens.device)
            if self.scale.ndim == 0:
                self.scale = self.scale[None]

    @property
    def silent(self) -> bool:
        """True where λ is the number 0: the identity branch need not be computed."""
        return isinstance(self.scale, int | float) and self.scale == 0

    def conditional_half(self) -> None:
        """Drop the unconditional half, for a loop that switches guidance off on its way."""
        half = len(self.tokens) // 2
        self.tokens = self.tokens[half:]
        if self.boxes is not None and len(self.boxes) > 1:
            self.boxes = self.boxes[half:]
        if isinstance(self.scale, Tensor) and self.scale.ndim == 2 and len(self.scale) > 1:
            self.scale = self.scale[half:]
        self._regions.clear()
        if self.cache is not None:
            self.cache.clear()

    def grid(self, cells: int) -> tuple[int, int]:
        """Return rows and columns of a layer with `cells` queries: the latent's size, halved (rounded up) to fit."""
        if self.height is None or self.width is None:
            side = math.isqrt(cells)
            if side * side != cells:
                raise ValueError(f"{cells} queries are no square: the identity state needs height and width")
            return side, side
        rows, columns = self.height, self.width
        while rows * columns > cells:
            rows, columns = -(-rows // 2), -(-columns // 2)
        if rows * columns != cells:
            raise ValueError(f"{cells} queries do not come from a latent of {self.height}x{self.width} by halving")
        return rows, columns

    def covered(self, people: int, cells: int, device: torch.device) -> Tensor:
        """Return which box covers which cell, (B or 1, P, cells) bool.

        A box covers the cells ⌊y0·H⌋ … ⌊y1·H⌋ − 1, at least one; columns likewise.
        """
        known = self._regions.get((people, cells))
        if known is None:
            boxes = self.boxes
            if boxes is None:
                edges = torch.arange(people + 1, dtype=torch.float64) / people
                ones = torch.ones(people, dtype=torch.float64)
                boxes = torch.stack([0 * ones, edges[:-1], ones, edges[1:]], dim=-1)[None]
            if boxes.shape[1] != people:
                raise ValueError(f"{boxes.shape[1]} boxes for {people} people")
            rows, columns = self.grid(cells)
            inside_rows = _span(boxes[..., 0], boxes[..., 2], rows)
            inside_columns = _span(boxes[..., 1], boxes[..., 3], columns)
            known = (inside_rows[..., :, None] & inside_columns[..., None, :]).flatten(2).to(device, non_blocking=True)
            self._regions[(people, cells)] = known
        return known

    def inside(self, people: int, cells: int, device: torch.device) -> Tensor:
        """Return which cells lie in anybody's box, (B or 1, cells) bool."""
        return self.covered(people, cells, device).any(dim=1)

    def closed(self, people: int, cells: int, device: torch.device) -> Tensor:
        """Return (B or 1, P, cells) bool: cells in somebody's box, but not in this person's."""
        covered = self.covered(people, cells, device)
        return covered.any(dim=1, keepdim=True) & ~covered


def _span(start: Tensor, end: Tensor, size: int) -> Tensor:
    """(B, P) starts and ends in [0, 1] → (B, P, size) bool."""
    first = (start * size).floor().clamp(0, size - 1)
    last = torch.maximum((end * size).floor(), first + 1)
    index = torch.arange(size, dtype=torch.float64)
    return (index >= first[..., None]) & (index < last[..., None])
