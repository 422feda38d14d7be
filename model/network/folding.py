"""Fold LoRA into the base model's weights, W + scale·up·down, and restore them bit for bit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from model.network.lora import LoRAAttention


class FoldedLoRA:
    """Add the LoRA of attention layers to their weights at one `scale`, and keep a copy of the original weights.

    Only layers that run in every step are folded (`LoRAAttention.foldable`). Sums are rounded, so subtracting would not
    restore the weights: the originals are kept in host memory. Calls with another `lora_scale` add the difference, and
    calls without identity subtract the LoRA; both are exact up to rounding. Raise ValueError if the weights are meta
    tensors (sequential CPU offload), or of few bits.
    """

    def __init__(self, layers: Iterable[Any], processors: Iterable[Any], scale: float = 1.0) -> None:
        self.scale = float(scale)
        self._originals: list[tuple[nn.Linear, Tensor]] = []
        self._processors: list[LoRAAttention] = list(processors)
        pairs = list(zip(layers, self._processors, strict=True))
        for layer, processor in pairs:
            for name in processor.foldable:
                weight = linear_of(layer, name).weight
                if not weight.is_floating_point():
                    raise ValueError(
                        f"LoRA cannot be folded into weights of {weight.dtype}: draw without folding, which takes "
                        "slightly longer"
                    )
                if weight.is_meta or getattr(processor, f"{name}_lora").up.weight.is_meta:
                    raise ValueError("LoRA cannot be folded under sequential CPU offload: fold first, then offload")
        with torch.no_grad():
            for layer, processor in pairs:
                for name in processor.foldable:
                    self._fold(linear_of(layer, name), getattr(processor, f"{name}_lora"))
                processor.folded = self.scale

    def _fold(self, linear: nn.Linear, lora: Any) -> None:
        weight = linear.weight
        # The sum is computed first: if that fails, the weights are unchanged.
        total = weight.float() + self.scale * (lora.up.weight.float() @ lora.down.weight.float()).to(weight.device)
        self._originals.append((linear, weight.detach().to("cpu", copy=True)))
        weight.copy_(total)

    def __deepcopy__(self, memo: Any) -> FoldedLoRA:
        raise ValueError("an adapter whose LoRA is folded cannot be copied: unfold() first")

    def undo(self) -> None:
        """Restore the weights of the layers, bit for bit."""
        if any(linear.weight.is_meta for linear, _ in self._originals):
            raise ValueError("LoRA cannot be unfolded under sequential CPU offload: remove_all_hooks() first")
        with torch.no_grad():
            for linear, weight in self._originals:
                linear.weight.copy_(weight)
        for processor in self._processors:
            processor.folded = 0.0
        self._originals.clear()


def linear_of(layer: Any, name: str) -> nn.Linear:
    """Return the linear layer `to_q`, `to_k`, `to_v` or `to_out` of an attention."""
    return layer.to_out[0] if name == "to_out" else getattr(layer, name)
