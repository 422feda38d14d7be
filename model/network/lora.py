"""LoRA on the linear layers of an attention, the common part of all attention processors (paper section 3.1)."""

from __future__ import annotations

from torch import Tensor, nn

from model.network.identity_state import IdentityState


class LoRA(nn.Module):
    """A low-rank addition to a linear layer, up(down(x)), initially zero."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, states: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        return self.up(self.down(states))


class LoRAAttention(nn.Module):
    """The common part of all processors: q, k, v, out of the base layer with LoRA on each.

    `folded` is the scale of the LoRA that the base weights of the layers `foldable` already contain (see folding.py).
    """

    foldable: tuple[str, ...] = ()

    def __init__(self, hidden: int, context: int, rank: int) -> None:
        super().__init__()
        self.folded = 0.0
        self.to_q_lora = LoRA(hidden, hidden, rank)
        self.to_k_lora = LoRA(context, hidden, rank)
        self.to_v_lora = LoRA(context, hidden, rank)
        self.to_out_lora = LoRA(hidden, hidden, rank)

    def _linear(self, name: str, base: nn.Linear, states: Tensor, identity: IdentityState | None) -> Tensor:
        """Apply the base layer and its LoRA; the scale is that of the state minus that folded into the base weights."""
        scale = self._lora_scale(name, identity)
        if scale == 0:
            return base(states)
        # In place: a linear layer does not need its own output for the gradient.
        return base(states).add_(getattr(self, f"{name}_lora")(states), alpha=scale)

    def _lora_scale(self, name: str, identity: IdentityState | None) -> float:
        """Return the scale at which the LoRA of a layer is to be added."""
        scale = 0.0 if identity is None else identity.current_lora_scale
        return scale - self.folded if name in self.foldable else scale


def split_heads(states: Tensor, heads: int) -> Tensor:
    """Reshape (B, N, heads·d) to (B, heads, N, d)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(states: Tensor) -> Tensor:
    """Reshape (B, heads, N, d) to (B, N, heads·d)."""
    return states.transpose(1, 2).flatten(2)
