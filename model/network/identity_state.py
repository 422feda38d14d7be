"""Who is to be drawn, where, and how strongly: what one call tells every attention of the UNet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model.network.regions import box_cells, mask_cells, slices

Box = Sequence[float]


@dataclass
class IdentityState:
    """The identity of one UNet call, passed as `cross_attention_kwargs={"identity": state}`.

    `tokens` (B, 4·P, D), one row a picture (with classifier-free guidance the unconditional half first, holding the
    null tokens); `boxes` (P, 4) shared by all pictures or (B, P, 4), y0 x0 y1 x1 in [0, 1], None for equal vertical
    slices; `masks` (P, h, w) or (B, P, h, w) in [0, 1], of any size, in place of boxes; `gate` False is w = 1;
    `threshold` τ, None for the adapter's own; `scale` λ, a number, or (P,) or (B, P) one per person; `lora_scale`
    multiplies the LoRA (`lora_now` says by how much: not at all while `step` < `layout_steps`, when the base model lays
    the picture out; the LoRA has learned single people alone); while `step` < `boost_steps` the gate is w + `boost`
    inside the boxes and w / (1 + `boost`) outside (`boosted` says whether that is so now); `height`, `width` of the
    latent (None: square).
    `maps`: give a list, and every cross-attention appends its gate (B, h, w), float32 in
    [0, 1], as it is before the boost.
    `cache`: give an empty dict, for inference only, and keys and values of text and identity are computed once for
    all steps that use this object.
    """

    tokens: Tensor
    boxes: Any = None
    gate: bool = True
    threshold: float | None = None
    scale: Any = 1.0
    lora_scale: float = 1.0
    layout_steps: int = 0
    boost: float = 0.0
    boost_steps: int = 0
    step: int = 0
    height: int | None = None
    width: int | None = None
    maps: list[Tensor] | None = None
    cache: dict[Any, Any] | None = None
    masks: Any = None
    boosted: bool = field(default=False, init=False)
    lora_now: float = field(default=1.0, init=False)
    _regions: dict[Any, Tensor] = field(default_factory=dict, repr=False)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name in ("boost", "boost_steps", "step"):
            # Ready before the step: a UNet that compares numbers itself would be compiled anew for every one.
            object.__setattr__(self, "boosted", bool(self.boost) and self.step < self.boost_steps)
        if name in ("lora_scale", "layout_steps", "step"):
            now = 0.0 if self.step < self.layout_steps else self.lora_scale
            if now != self.lora_now and self.cache:
                # Keys and values of the text were made with as much LoRA as there was.
                self.cache.clear()
            object.__setattr__(self, "lora_now", now)

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3:
            raise ValueError(f"identity tokens of shape {tuple(self.tokens.shape)}: expected (pictures, tokens, width)")
        if self.boxes is not None and self.masks is not None:
            raise ValueError("boxes and masks: expected one of the two")
        # On the host: cells are counted there once per layer size, and nothing is read back from the device.
        if self.boxes is not None:
            self.boxes = self._shared(torch.as_tensor(self.boxes, dtype=torch.float64, device="cpu"), 3, "boxes")
            if self.boxes.shape[-1] != 4:
                raise ValueError(f"boxes of shape {tuple(self.boxes.shape)}: expected four numbers a box")
        if self.masks is not None:
            self.masks = self._shared(torch.as_tensor(self.masks, dtype=torch.float32, device="cpu"), 4, "masks")
        if not isinstance(self.scale, int | float):
            self.scale = torch.as_tensor(self.scale, dtype=torch.float32, device=self.tokens.device)
            if self.scale.ndim == 0:
                self.scale = self.scale[None]

    def _shared(self, given: Tensor, dimensions: int, name: str) -> Tensor:
        """Return `given` with one row for all pictures, or one a picture."""
        rows = given[None] if given.ndim == dimensions - 1 else given
        pictures = len(self.tokens)
        if rows.ndim != dimensions or len(rows) not in (1, pictures):
            form = "people, 4" if name == "boxes" else "people, height, width"
            raise ValueError(f"{name} of shape {tuple(given.shape)}: expected ({form}) or ({pictures}, {form})")
        return rows

    @property
    def silent(self) -> bool:
        """True where λ is the number 0: the identity branch need not be computed."""
        return isinstance(self.scale, int | float) and self.scale == 0

    def conditional_half(self) -> None:
        """Drop the unconditional half, for a loop that switches guidance off on its way."""
        half = len(self.tokens) // 2
        self.tokens = self.tokens[half:]
        for name in ("boxes", "masks", "scale"):
            value = getattr(self, name)
            if isinstance(value, Tensor) and value.ndim > 1 and len(value) > 1:
                setattr(self, name, value[half:])
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
        """Return which person's box or mask covers which cell, (B or 1, P, cells) bool (see regions.py)."""
        known = self._regions.get(("covered", people, cells))
        if known is None:
            given = self.masks if self.masks is not None else slices(people) if self.boxes is None else self.boxes
            if given.shape[1] != people:
                name = "boxes" if self.masks is None else "masks"
                raise ValueError(f"{given.shape[1]} {name} for {people} people")
            count = box_cells if self.masks is None else mask_cells
            known = count(given, *self.grid(cells)).to(device, non_blocking=True)
            self._regions["covered", people, cells] = known
        return known

    def inside(self, people: int, cells: int, device: torch.device) -> Tensor:
        """Return which cells lie in anybody's region, (B or 1, cells) bool."""
        return self.covered(people, cells, device).any(dim=1)

    def closed(self, people: int, cells: int, tokens: int, device: torch.device) -> Tensor:
        """Return (B or 1, cells, 1, tokens·P) bool: cells in somebody's region, but not in the token's person's."""
        known = self._regions.get(("closed", people, cells, tokens))
        if known is None:
            covered = self.covered(people, cells, device)
            closed = covered.any(dim=1, keepdim=True) & ~covered
            known = closed.repeat_interleave(tokens, dim=1).transpose(1, 2)[:, :, None]
            self._regions["closed", people, cells, tokens] = known
        return known
