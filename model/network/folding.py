"""LoRA inside the base model's own weights, W + scale·up·down, and out again, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from model.network.attention import LoRAAttention


class Folded:
    """The LoRA of some attention layers in their weights, at one `scale`, and the weights as they were before.

    Only what runs at every step is folded (`LoRAAttention.foldable`). Sums are rounded, so subtracting again would not
    give the old bits back: the old weights are kept, on the host, whatever the device. Other calls are not disturbed:
    a state with another `lora_scale` gets the difference, and a call without identity has the LoRA subtracted (equal to
    the base model up to rounding). Raises ValueError where the weights are not here (sequential CPU offload).
    """

    def __init__(self, layers: Iterable[Any], processors: Iterable[Any], scale: float = 1.0) -> None:
        self.scale = float(scale)
        self._kept: list[tuple[nn.Linear, Tensor]] = []
        self._processors: list[LoRAAttention] = list(processors)
        pairs = list(zip(layers, self._processors, strict=True))
        for layer, processor in pairs:
            for name in processor.foldable:
                weight = linear_of(layer, name).weight
                if weight.is_meta or getattr(processor, f"{name}_lora").up.weight.is_meta:
                    raise ValueError("LoRA cannot be folded under sequential CPU offload: fold first, then offload")
        with torch.no_grad():
            for layer, processor in pairs:
                for name in processor.foldable:
                    self._fold(linear_of(layer, name), getattr(processor, f"{name}_lora"))
                processor.folded = self.scale

    def _fold(self, linear: nn.Linear, lora: Any) -> None:
        weight = linear.weight
        # Copied after the sum is made: an error on the way leaves the weights as they are.
        total = weight.float() + self.scale * (lora.up.weight.float() @ lora.down.weight.float()).to(weight.device)
        self._kept.append((linear, weight.detach().to("cpu", copy=True)))
        weight.copy_(total)

    def __deepcopy__(self, memo: Any) -> Folded:
        raise ValueError("an adapter whose LoRA is folded cannot be copied: unfold() first")

    def undo(self) -> None:
        """Give the layers their own weights back, bit for bit."""
        if any(linear.weight.is_meta for linear, _ in self._kept):
            raise ValueError("LoRA cannot be unfolded under sequential CPU offload: remove_all_hooks() first")
        with torch.no_grad():
            for linear, weight in self._kept:
                linear.weight.copy_(weight)
        for processor in self._processors:
            processor.folded = 0.0
        self._kept.clear()


def linear_of(layer: Any, name: str) -> nn.Linear:
    """Return the linear layer `to_q`, `to_k`, `to_v` or `to_out` of an attention."""
    return layer.to_out[0] if name == "to_out" else getattr(layer, name)
