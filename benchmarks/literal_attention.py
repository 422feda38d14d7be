"""The method implemented literally: whole attention matrices in memory, LoRA as separate layers, no caches.

Each call computes the formulas of section 3.1 of the paper with the weights of the project's processors, so both
predict the same; only time and memory differ.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from model.network.attention import SemanticActivatedAttention
from model.network.lora import LoRA, LoRAAttention

_EPSILON = 1e-6


class LiteralSelfAttention:
    """Self-attention with its N×N matrix of weights, and LoRA added to every projection."""

    def __init__(self, weights: LoRAAttention) -> None:
        self.weights = weights

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        tokens: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Return self-attention of (B, N, C); ignore `tokens`, which only cross-attention reads."""
        own = self.weights
        query = _project(attn.to_q, own.to_q_lora, hidden_states)
        key = _project(attn.to_k, own.to_k_lora, hidden_states)
        value = _project(attn.to_v, own.to_v_lora, hidden_states)
        states = _attend(attn, query, key, value)
        return _project(attn.to_out[0], own.to_out_lora, states)


class LiteralSemanticActivatedAttention:
    """Cross-attention to the text (N×77), then to the person, with a gate from separate logits."""

    def __init__(self, weights: SemanticActivatedAttention) -> None:
        self.weights = weights

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *,
        tokens: Tensor,
        **_: Any,
    ) -> Tensor:
        """Return cross-attention of (B, N, C) to the text (B, T, D) and to one person's `tokens` (B, 4, D)."""
        own = self.weights
        query = _project(attn.to_q, own.to_q_lora, hidden_states)
        key = _project(attn.to_k, own.to_k_lora, encoder_hidden_states)
        value = _project(attn.to_v, own.to_v_lora, encoder_hidden_states)
        states = _attend(attn, query, key, value)
        own_key, own_value = own.to_k_ip(tokens), own.to_v_ip(tokens)
        gate = self._gate(attn, query, own_key)
        states = states + gate[..., None] * _attend(attn, query, own_key, own_value)
        return _project(attn.to_out[0], own.to_out_lora, states)

    def _gate(self, attn: Any, query: Tensor, key: Tensor) -> Tensor:
        """Return the gate w (B, N) in [0, 1]."""
        batch = len(query)
        query, key = attn.head_to_batch_dim(query), attn.head_to_batch_dim(key)
        logits = (query @ key.transpose(-1, -2)) * attn.scale
        activation = logits.unflatten(0, (batch, attn.heads)).sum(dim=(1, 3))
        low, high = activation.amin(dim=1, keepdim=True), activation.amax(dim=1, keepdim=True)
        gate = (activation - low) / (high - low + _EPSILON)
        return torch.where(gate < self.weights.threshold, torch.zeros_like(gate), gate)


def literal_processors(processors: nn.ModuleList) -> list[Any]:
    """Return literal versions of the project's processors, in their order, with the same weights."""
    return [
        LiteralSemanticActivatedAttention(own)
        if isinstance(own, SemanticActivatedAttention)
        else LiteralSelfAttention(own)
        for own in processors
    ]


def _project(base: nn.Linear, lora: LoRA, states: Tensor) -> Tensor:
    return base(states) + lora(states)


def _attend(attn: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return attention as diffusers computes it without a fused kernel: logits, softmax, product."""
    query, key, value = (attn.head_to_batch_dim(states) for states in (query, key, value))
    probabilities = attn.get_attention_scores(query, key, None)
    return attn.batch_to_head_dim(torch.bmm(probabilities, value))
