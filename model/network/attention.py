"""Attention processors of a UNet: Semantic-Activated Attention (SAA) beside every text attention, LoRA in all.

Paper section 3.1. The values of a call are passed in `cross_attention_kwargs={"identity": IdentityState(...)}`; the
processors contain only weights, so several callers can use one UNet. Without an identity state, an attention behaves as
in the base model. Those of a transformer are in joint_attention.py; what both share, in identity_branch.py and lora.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

from model.network.identity_branch import IdentityAttention
from model.network.identity_state import IdentityState
from model.network.lora import LoRAAttention, join_heads, split_heads


class UNetAttention(LoRAAttention):
    """The common part of both processors: what surrounds the attention itself."""

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


class SelfAttentionLoRA(UNetAttention):
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


class SemanticActivatedAttention(IdentityAttention, UNetAttention):
    """Processor of a cross-attention: text attention with LoRA, plus the gated identity branch.

    The identity tokens have the width of the text, `context`. See IdentityAttention.
    """

    # Not k and v: the cache of a call keeps them, so folding would save almost nothing.
    foldable = ("to_q", "to_out")

    def _attend(
        self, attn: Attention, hidden: Tensor, context: Tensor, mask: Tensor | None, identity: IdentityState | None
    ) -> Tensor:
        query = self._linear("to_q", attn.to_q, hidden, identity)
        key, value = self._text(attn, context, identity)
        by_head = split_heads(query, attn.heads)
        if identity is not None and identity.text_maps is not None:
            identity.text_maps.collect(self, by_head, key)
        states = join_heads(F.scaled_dot_product_attention(by_head, key, value, attn_mask=mask))
        return states if identity is None else self.add_identity(states, query, attn.heads, identity)

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
        processor.to_k_ip.weight.copy_(_weight(attn.to_k))
        processor.to_v_ip.weight.copy_(_weight(attn.to_v))
    return processor


def _weight(linear: torch.nn.Linear) -> Tensor:
    """Return the weight (O, I) of a linear layer without bias; of one of few bits, what it does to each input."""
    weight = linear.weight
    if weight.is_floating_point() and weight.shape == (linear.out_features, linear.in_features):
        return weight
    return linear(torch.eye(linear.in_features, device=weight.device)).T
