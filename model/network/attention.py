"""Attention processors: Semantic-Activated Attention (SAA) beside every text attention, and LoRA in all attentions.

Paper section 3.1. The values of a call are passed in `cross_attention_kwargs={"identity": IdentityState(...)}`; the
processors contain only weights, so several callers can use one UNet. Without an identity state, an attention behaves as
in the base model. In shapes, K is the number of identity tokens per person, and P the number of people; where a person
has the tokens of several references beside each other, K·P stands for all of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from model.network.identity_state import IdentityState

_EPSILON = 1e-6


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
    """The common part of both processors: q, k, v, out of the base layer with LoRA on each.

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
        scale = 0.0 if identity is None else identity.current_lora_scale
        if name in self.foldable:
            scale -= self.folded
        if scale == 0:
            return base(states)
        # In place: a linear layer does not need its own output for the gradient.
        return base(states).add_(getattr(self, f"{name}_lora")(states), alpha=scale)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        temb: Tensor | None = None,
        identity: IdentityState | None = None,
    ) -> Tensor:
        """Return (B, N, C): `hidden_states` (B, N, C) after attention to text (B, T, D) and identity, or to itself."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attention_mask is not None:
            batch, length, _ = context.shape
            attention_mask = attn.prepare_attention_mask(attention_mask, length, batch)
            attention_mask = attention_mask.view(batch, attn.heads, -1, attention_mask.shape[-1])
        states = self._attend(attn, hidden_states, context, attention_mask, identity)
        states = attn.to_out[1](self._linear("to_out", attn.to_out[0], states, identity))
        return states if attn.rescale_output_factor == 1 else states / attn.rescale_output_factor

    def _attend(
        self, attn: Attention, hidden: Tensor, context: Tensor, mask: Tensor | None, identity: IdentityState | None
    ) -> Tensor:
        """Return the states (B, N, C) before the output layer."""
        raise NotImplementedError


class SelfAttentionLoRA(LoRAAttention):
    """Processor of a self-attention: the base layer with LoRA.

    `hidden` is the width of the layer, `rank` the rank of the LoRA.
    """

    foldable = ("to_q", "to_k", "to_v", "to_out")

    def __init__(self, hidden: int, rank: int) -> None:
        super().__init__(hidden, hidden, rank)

    def _attend(
        self, attn: Attention, hidden: Tensor, context: Tensor, mask: Tensor | None, identity: IdentityState | None
    ) -> Tensor:
        query = split_heads(self._linear("to_q", attn.to_q, hidden, identity), attn.heads)
        key = split_heads(self._linear("to_k", attn.to_k, context, identity), attn.heads)
        value = split_heads(self._linear("to_v", attn.to_v, context, identity), attn.heads)
        if identity is not None and identity.text_maps is not None:
            identity.text_maps.collect(self, query, key)
        return join_heads(F.scaled_dot_product_attention(query, key, value, attn_mask=mask))


class SemanticActivatedAttention(LoRAAttention):
    """Processor of a cross-attention: text attention with LoRA, plus the gated identity branch.

    `hidden` is the width of the layer, `context` that of text and identity tokens, `rank` the rank of the LoRA,
    `tokens` the number of identity tokens per reference, `threshold` the gate's τ unless the state has one. Not
    `gated`, it is the decoupled cross-attention of IP-Adapter, whatever the state asks for.
    """

    # Not k and v: the cache of a call keeps them, so folding would save almost nothing.
    foldable = ("to_q", "to_out")

    def __init__(
        self, hidden: int, context: int, rank: int, tokens: int = 4, threshold: float = 0.3, *, gated: bool = True
    ) -> None:
        super().__init__(hidden, context, rank)
        self.gated = gated
        self.tokens = tokens
        self.threshold = threshold
        self.to_k_ip = nn.Linear(context, hidden, bias=False)
        self.to_v_ip = nn.Linear(context, hidden, bias=False)

    def _attend(
        self, attn: Attention, hidden: Tensor, context: Tensor, mask: Tensor | None, identity: IdentityState | None
    ) -> Tensor:
        query = self._linear("to_q", attn.to_q, hidden, identity)
        key, value = self._text(attn, context, identity)
        by_head = split_heads(query, attn.heads)
        if identity is not None and identity.text_maps is not None:
            identity.text_maps.collect(self, by_head, key)
        states = join_heads(F.scaled_dot_product_attention(by_head, key, value, attn_mask=mask))
        if identity is not None and not identity.identity_off:
            weights, identity_value = self._identity(attn, query, identity)
            weights, identity_value = weights.to(states.dtype), identity_value.to(states.dtype)
            if torch.is_grad_enabled():
                states = torch.baddbmm(states, weights, identity_value)
            else:
                # In place: the output of the attention is not used elsewhere.
                states = states.baddbmm_(weights, identity_value)
        return states

    def _text(self, attn: Attention, text: Tensor, identity: IdentityState | None) -> tuple[Tensor, Tensor]:
        """Return keys and values of the text, each (B, heads, T, d), from the cache if it has those of this text."""
        cache = None if identity is None else identity.cache
        cached = None if cache is None else cache.get((id(self), "text"))
        # Compare the object: comparing contents would wait for the device.
        if cached is None or cached[0] is not text:
            key = self._linear("to_k", attn.to_k, text, identity)
            value = self._linear("to_v", attn.to_v, text, identity)
            cached = (text, split_heads(key, attn.heads), split_heads(value, attn.heads))
            if cache is not None:
                cache[(id(self), "text")] = cached
        return cached[1], cached[2]

    def _identity(self, attn: Attention, query: Tensor, identity: IdentityState) -> tuple[Tensor, Tensor]:
        """Return the gated softmax (B, N, heads·K·P) and λ·values (B, heads·K·P, C); the branch is their product."""
        batch, cells, _ = query.shape
        count = identity.tokens.shape[1]
        if identity.tokens.shape[0] != batch:
            raise ValueError(f"identity tokens of {identity.tokens.shape[0]} pictures for {batch} pictures")
        people, shares = identity.people(self.tokens), identity.shares(self.tokens)
        key, value = self._identity_keys_values(attn, identity)
        # The gate needs the logits, which SDPA does not return. They are float32 even under mixed precision, because
        # the gate divides by their range, which may be small.
        with torch.autocast(query.device.type, enabled=False):
            logits = torch.bmm(query.float(), key)
        per_head = logits.unflatten(-1, (attn.heads, count))
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

    def _identity_keys_values(self, attn: Attention, identity: IdentityState) -> tuple[Tensor, Tensor]:
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
        width = key.shape[-1] // attn.heads
        key = _block_diagonal(key.float() * width**-0.5, attn.heads).transpose(1, 2)
        cached = key.contiguous(), _block_diagonal(value * scale, attn.heads)
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


def split_heads(states: Tensor, heads: int) -> Tensor:
    """Reshape (B, N, heads·d) to (B, heads, N, d)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(states: Tensor) -> Tensor:
    """Reshape (B, heads, N, d) to (B, N, heads·d)."""
    return states.transpose(1, 2).flatten(2)


def _block_diagonal(states: Tensor, heads: int) -> Tensor:
    """Map (B, T, heads·d) to (B, heads·T, heads·d): row (head, t) has token t's values of that head, else zeros."""
    split = split_heads(states, heads)[:, :, :, None]
    identity = torch.eye(heads, dtype=states.dtype, device=states.device)[None, :, None, :, None]
    return (split * identity).flatten(3).flatten(1, 2)


def processor_for(attn: Attention, rank: int, tokens: int, threshold: float, *, gated: bool = True) -> LoRAAttention:
    """Return a new processor for a layer of the base model; k', v' are copies of the text's k, v, and LoRA is zero.

    Raise ValueError for attention variants that Stable Diffusion's UNet does not have.
    """
    variants = {
        "group_norm": attn.group_norm,
        "spatial_norm": attn.spatial_norm,
        "norm_q": attn.norm_q,
        "norm_cross": attn.norm_cross,
        "added_kv_proj_dim": attn.added_kv_proj_dim,
        "residual_connection": attn.residual_connection or None,
    }
    found = [name for name, value in variants.items() if value is not None]
    if found:
        raise ValueError(f"attention with {', '.join(found)}: expected the plain attention of a Stable Diffusion UNet")
    hidden = attn.to_q.out_features
    if not attn.is_cross_attention:
        return SelfAttentionLoRA(hidden, rank)
    processor = SemanticActivatedAttention(hidden, attn.to_k.in_features, rank, tokens, threshold, gated=gated)
    with torch.no_grad():
        processor.to_k_ip.weight.copy_(attn.to_k.weight)
        processor.to_v_ip.weight.copy_(attn.to_v.weight)
    return processor
