"""The identity branch of an attention, of every family of base models: gate, people, tokens and scales.

Paper section 3.1: out = Attn(q, text) + λ · w ⊙ softmax(q K' / √d) V', where K', V' are keys and values of the identity
tokens, and the gate w is computed from the same logits. In shapes, K is the number of identity tokens per person, and P
the number of people; where a person has the tokens of several references beside each other, K·P stands for all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.network.identity_state import IdentityState
from model.network.lora import LoRAAttention, split_heads

_EPSILON = 1e-6


class IdentityAttention(LoRAAttention):
    """Weights and computation of the gated identity branch, for processors that add it to an attention of the base.

    `hidden` is the width of the layer, `context` that of what k and v are computed from, `rank` the rank of the LoRA,
    `width` that of the identity tokens (default: `context`), `tokens` the number of identity tokens per reference,
    `threshold` the gate's τ unless the state has one. Not `gated`, it is the decoupled cross-attention of IP-Adapter,
    whatever the state asks for.
    """

    def __init__(
        self,
        hidden: int,
        context: int,
        rank: int,
        tokens: int = 4,
        threshold: float = 0.3,
        *,
        gated: bool = True,
        width: int | None = None,
    ) -> None:
        super().__init__(hidden, context, rank)
        self.gated = gated
        self.tokens = tokens
        self.threshold = threshold
        self.to_k_ip = nn.Linear(context if width is None else width, hidden, bias=False)
        self.to_v_ip = nn.Linear(context if width is None else width, hidden, bias=False)

    def add_identity(self, states: Tensor, query: Tensor, heads: int, identity: IdentityState) -> Tensor:
        """Return the states (B, N, C) of an attention plus the identity branch of its queries (B, N, C).

        Outside of training the sum replaces the contents of `states`.
        """
        if identity.identity_off:
            return states
        weights, value = self._branch(query, heads, identity)
        weights, value = weights.to(states.dtype), value.to(states.dtype)
        if torch.is_grad_enabled():
            return torch.baddbmm(states, weights, value)
        # In place: the output of the attention is not used elsewhere.
        return states.baddbmm_(weights, value)

    def _branch(self, query: Tensor, heads: int, identity: IdentityState) -> tuple[Tensor, Tensor]:
        """Return the gated softmax (B, N, heads·K·P) and λ·values (B, heads·K·P, C); the branch is their product."""
        batch, cells, _ = query.shape
        count = identity.tokens.shape[1]
        if identity.tokens.shape[0] != batch:
            raise ValueError(f"identity tokens of {identity.tokens.shape[0]} pictures for {batch} pictures")
        people, shares = identity.people(self.tokens), identity.shares(self.tokens)
        key, value = self._keys_values(heads, identity)
        # The gate needs the logits, which SDPA does not return. They are float32 even under mixed precision, because
        # the gate divides by their range, which may be small.
        with torch.autocast(query.device.type, enabled=False):
            logits = torch.bmm(query.float(), key)
        per_head = logits.unflatten(-1, (heads, count))
        # A person weighs as much as another one, whatever the number of references.
        activation = logits.sum(dim=-1) if shares is None else (per_head * shares).sum(dim=(-2, -1))
        gate = self._gate(activation, people, identity)
        if shares is not None:
            per_head = per_head + shares.log()
        if people > 1:
            excluded = identity.excluded(people, cells, self.tokens, logits.device)
            per_head = per_head.masked_fill(excluded, -torch.inf)
        weights = per_head.softmax(dim=-1).flatten(2)
        return (weights if gate is None else weights * gate[..., None]), value

    def _keys_values(self, heads: int, identity: IdentityState) -> tuple[Tensor, Tensor]:
        """Return keys / √d (B, C, heads·K·P) in float32 and λ·values (B, heads·K·P, C), block-diagonal over the heads.

        With so few keys, the zero blocks cost less than splitting the queries by head.
        """
        cached = None if identity.cache is None else identity.cache.get((id(self), "identity"))
        if cached is not None:
            return cached
        tokens = identity.tokens.to(self.to_k_ip.weight.dtype)
        key, value = self.to_k_ip(tokens), self.to_v_ip(tokens)
        scale = identity.scale
        if isinstance(scale, Tensor):
            scale = identity.per_token(scale, self.tokens).to(value.dtype)[..., None]
        width = key.shape[-1] // heads
        key = _block_diagonal(key.float() * width**-0.5, heads).transpose(1, 2)
        cached = key.contiguous(), _block_diagonal(value * scale, heads)
        if identity.cache is not None:
            identity.cache[(id(self), "identity")] = cached
        return cached

    def _gate(self, activation: Tensor, people: int, identity: IdentityState) -> Tensor | None:
        """Return the gate w (B, N) in float32 from the sums of logits (B, N), or None if it is off (w = 1)."""
        if not (self.gated and identity.gate):
            return None
        low = activation.amin(dim=1, keepdim=True)
        high = activation.amax(dim=1, keepdim=True)
        gate = (activation - low) / (high - low + _EPSILON)
        threshold = self.threshold if identity.threshold is None else identity.threshold
        gate = gate * (gate >= threshold)
        cells = gate.shape[1]
        if identity.maps is not None:
            identity.maps.append(gate.detach().unflatten(1, identity.grid(cells)))
        if identity.boosted:
            inside = identity.inside(people, cells, gate.device)
            gate = torch.where(inside, gate + identity.boost, gate / (1 + identity.boost))
        return gate


def _block_diagonal(states: Tensor, heads: int) -> Tensor:
    """Map (B, T, heads·d) to (B, heads·T, heads·d): row (head, t) has token t's values of that head, else zeros."""
    split = split_heads(states, heads)[:, :, :, None]
    identity = torch.eye(heads, dtype=states.dtype, device=states.device)[None, :, None, :, None]
    return (split * identity).flatten(3).flatten(1, 2)
