"""The identity of one call of the denoiser for all of its attentions: tokens, regions and strengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from model.network.regions import box_cells, mask_cells, vertical_slices
from model.network.text_maps import TextMaps

Box = Sequence[float]


@dataclass
class IdentityState:
    """The identity of one call: `cross_attention_kwargs={"identity": state}`; transformers: `joint_attention_kwargs`.

    - `tokens` (B, K·P, D), K for each of P people; with classifier-free guidance, the first B/2 rows are null tokens.
    - `references`: how many references of each person have their K tokens in `tokens`, beside each other; None: one.
      In softmax and gate they share the weight of one: a reference given twice is the reference given once.
    - `boxes` (P, 4) for all pictures or (B, P, 4), y0 x0 y1 x1 in [0, 1]; or `masks` (P, h, w) or (B, P, h, w) in
      [0, 1], of any size. Without both: equal vertical slices.
    - `gate`: False for w = 1. `threshold` τ: None for that of the adapter.
    - `scale` λ: a number, or (P,) or (B, P), one per person.
    - `lora_scale` multiplies the LoRA. While `step` < `layout_steps`, LoRA is off: it was trained on single people, so
      the base model determines the layout of several. `current_lora_scale` is the factor at this step.
    - While `step` < `boost_steps` the gate is w + `boost` inside the boxes and w / (1 + `boost`) outside; `boosted` is
      whether this applies at this step.
    - `height`, `width` of the latent (None: square).
    - `maps`: a list to which every cross-attention appends its gate (B, h, w), float32 in [0, 1], before the boost.
    - `text_maps`: what collects the attention of chosen layers to words (see text_maps.py); for training.
    - `cache`: an empty dict, for inference only: keys and values of text and identity are then computed once for all
      steps with the same LoRA scale.
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
    text_maps: TextMaps | None = None
    references: Sequence[int] | None = None
    boosted: bool = field(default=False, init=False)
    current_lora_scale: float = field(default=1.0, init=False)
    _regions: dict[Any, Tensor] = field(default_factory=dict, repr=False)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name in ("boost", "boost_steps", "step"):
            # Compared here, not in the UNet: a compiled UNet would be recompiled for every new number.
            object.__setattr__(self, "boosted", bool(self.boost) and self.step < self.boost_steps)
        if name in ("lora_scale", "layout_steps", "step"):
            current = 0.0 if self.step < self.layout_steps else self.lora_scale
            if current != self.current_lora_scale and self.cache:
                # Cached keys and values of the text depend on the LoRA scale.
                self.cache.clear()
            object.__setattr__(self, "current_lora_scale", current)

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3:
            raise ValueError(f"identity tokens of shape {tuple(self.tokens.shape)}: expected (pictures, tokens, width)")
        if self.references is not None:
            self.references = None if all(number == 1 for number in self.references) else tuple(self.references)
        if self.boxes is not None and self.masks is not None:
            raise ValueError("boxes and masks: expected one of the two")
        # Regions are computed on the host, once per layer size, so that nothing is read from the device.
        if self.boxes is not None:
            self.boxes = self._shared(torch.as_tensor(self.boxes, dtype=torch.float64, device="cpu"), 3, "boxes")
            if self.boxes.shape[-1] != 4:
                raise ValueError(f"boxes of shape {tuple(self.boxes.shape)}: expected four numbers per box")
        if self.masks is not None:
            self.masks = self._shared(torch.as_tensor(self.masks, dtype=torch.float32, device="cpu"), 4, "masks")
        if not isinstance(self.scale, int | float):
            self.scale = torch.as_tensor(self.scale, dtype=torch.float32, device=self.tokens.device)
            if self.scale.ndim == 0:
                self.scale = self.scale[None]

    def _shared(self, given: Tensor, dimensions: int, name: str) -> Tensor:
        """Return `given` with one row for all pictures or one per picture; raise ValueError for another shape."""
        rows = given[None] if given.ndim == dimensions - 1 else given
        pictures = len(self.tokens)
        if rows.ndim != dimensions or len(rows) not in (1, pictures):
            form = "people, 4" if name == "boxes" else "people, height, width"
            raise ValueError(f"{name} of shape {tuple(given.shape)}: expected ({form}) or ({pictures}, {form})")
        return rows

    def people(self, tokens: int) -> int:
        """Return the number of people, with `tokens` for each reference; raise ValueError where they do not fit."""
        count = self.tokens.shape[1]
        if self.references is not None:
            if sum(self.references) * tokens != count:
                raise ValueError(
                    f"{count} identity tokens: expected {tokens} for each of {sum(self.references)} references"
                )
            return len(self.references)
        if count % tokens:
            raise ValueError(f"{count} identity tokens: expected a multiple of {tokens}")
        return count // tokens

    def per_token(self, values: Tensor, tokens: int) -> Tensor:
        """Repeat values (…, P) of people for each of their tokens."""
        if self.references is None:
            return values.repeat_interleave(tokens, dim=-1)
        return torch.cat(
            [values[..., p : p + 1].expand(*values.shape[:-1], tokens * n) for p, n in enumerate(self.references)],
            dim=-1,
        )

    def shares(self, tokens: int) -> Tensor | None:
        """Return what each token weighs, 1 / the number of its person's references, (K·R,) float32; None: all 1."""
        if self.references is None:
            return None
        cached = self._regions.get(("shares", tokens))
        if cached is None:
            cached = self.per_token(1 / torch.tensor(self.references, dtype=torch.float32), tokens).to(
                self.tokens.device
            )
            self._regions["shares", tokens] = cached
        return cached

    def with_tokens(self, tokens: Tensor) -> IdentityState:
        """Return a state of other tokens of the same shape, with a cache of its own, that reports no gates."""
        return replace(self, tokens=tokens, maps=None, cache=None if self.cache is None else {})

    @property
    def identity_off(self) -> bool:
        """Whether λ is the number 0, so that the identity branch is not computed."""
        return isinstance(self.scale, int | float) and self.scale == 0

    def conditional_half(self) -> None:
        """Drop the unconditional half, after a loop has switched guidance off before its end."""
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
        """Return rows and columns of a layer with `cells` queries: the latent's, halved (rounded up) until they fit.

        Patches of 2×2 cells, of which the sequence of a transformer consists, are the first half.
        """
        if self.height is None or self.width is None:
            side = math.isqrt(cells)
            if side * side != cells:
                raise ValueError(f"{cells} queries are not a square: the identity state needs height and width")
            return side, side
        rows, columns = self.height, self.width
        while rows * columns > cells:
            rows, columns = -(-rows // 2), -(-columns // 2)
        if rows * columns != cells:
            raise ValueError(f"{cells} queries do not come from a latent of {self.height}x{self.width} by halving")
        return rows, columns

    def patches(self, side: int) -> int:
        """Return how many patches of `side` × `side` cells the latent has; raise ValueError if its size is unknown."""
        if self.height is None or self.width is None:
            raise ValueError("the identity state of a transformer needs height and width of the latent")
        return (self.height // side) * (self.width // side)

    def covered(self, people: int, cells: int, device: torch.device) -> Tensor:
        """Return the cells that each person's box or mask covers, (B or 1, P, cells) bool (see regions.py)."""
        cached = self._regions.get(("covered", people, cells))
        if cached is None:
            given = self.boxes if self.masks is None else self.masks
            given = vertical_slices(people) if given is None else given
            if given.shape[1] != people:
                name = "boxes" if self.masks is None else "masks"
                raise ValueError(f"{given.shape[1]} {name} for {people} people")
            to_cells = box_cells if self.masks is None else mask_cells
            cached = to_cells(given, *self.grid(cells)).to(device, non_blocking=True)
            self._regions["covered", people, cells] = cached
        return cached

    def inside(self, people: int, cells: int, device: torch.device) -> Tensor:
        """Return the cells in the region of any person, (B or 1, cells) bool."""
        return self.covered(people, cells, device).any(dim=1)

    def excluded(self, people: int, cells: int, tokens: int, device: torch.device) -> Tensor:
        """Return (B or 1, cells, 1, K·P) bool: true in regions of others outside that of the token's person."""
        cached = self._regions.get(("excluded", people, cells, tokens))
        if cached is None:
            covered = self.covered(people, cells, device)
            excluded = (covered.any(dim=1, keepdim=True) & ~covered).transpose(1, 2)
            cached = self.per_token(excluded, tokens)[:, :, None]
            self._regions["excluded", people, cells, tokens] = cached
        return cached
