"""Attention processors of a Flux transformer: Semantic-Activated Attention (SAA) beside the joint attention, and LoRA.

In a transformer, text and picture are one sequence, which attends to itself. The identity branch is that of a UNet
(identity_branch.py), with the queries of the picture alone: the text does not see the identity. The queries are those
after their normalisation and before the rotation by position, since identity tokens have no place in the picture.

The values of a call are passed in `joint_attention_kwargs={"identity": IdentityState(...)}`, whose height and width are
those of the latents, of which 2×2 are one position. Without an identity state, an attention behaves as in the base.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention
from torch import Tensor, nn

from model.network.identity_branch import IdentityAttention
from model.network.identity_state import IdentityState

PATCH = 2


class JointSemanticActivatedAttention(IdentityAttention):
    """Processor of a joint attention: the base layer with LoRA, plus the gated identity branch of the picture.

    In blocks of two streams (`single` is False), LoRA is on q, k, v and out of the picture; the text has layers of its
    own, without LoRA. In blocks of one stream it is on q, k, v of the whole sequence, and on the result, which the
    block passes on to its output layer. See IdentityAttention; `width` is that of the identity tokens.
    """

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __init__(
        self,
        hidden: int,
        width: int,
        rank: int,
        tokens: int = 4,
        threshold: float = 0.3,
        *,
        single: bool,
    ) -> None:
        super().__init__(hidden, hidden, rank, tokens, threshold, width=width)
        self.single = single
        self.foldable = ("to_q", "to_k", "to_v") if single else ("to_q", "to_k", "to_v", "to_out")
        # There is no layer whose values could be copied: training starts from the base model.
        nn.init.zeros_(self.to_v_ip.weight)

    def __call__(
        self,
        attn: FluxAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        *,
        identity: IdentityState | None = None,
    ) -> Any:
        """Return the states after attention: one stream (B, T + N, C), or two, picture (B, N, C) and text (B, T, C).

        `hidden_states` (B, T + N, C) are text and picture; where `encoder_hidden_states` (B, T, C) are the text,
        (B, N, C) the picture.
        """
        query, key, value = (
            self._linear(name, getattr(attn, name), hidden_states, identity).unflatten(-1, (attn.heads, -1))
            for name in ("to_q", "to_k", "to_v")
        )
        query, key = attn.norm_q(query), attn.norm_k(key)
        asking = query
        if encoder_hidden_states is not None:
            query, key, value = _with_text(attn, encoder_hidden_states, query, key, value)
        if image_rotary_emb is not None:
            query = apply_rotary_emb(query, image_rotary_emb, sequence_dim=1)
            key = apply_rotary_emb(key, image_rotary_emb, sequence_dim=1)
        states = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=attention_mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        states = states.flatten(2, 3).to(query.dtype)
        cells = self._picture(asking.shape[1], identity)
        text, picture = states.split_with_sizes([states.shape[1] - cells, cells], dim=1)
        if identity is not None and not identity.identity_off:
            picture = self.add_identity(picture, asking[:, -cells:].flatten(2), attn.heads, identity)
            if torch.is_grad_enabled():
                states = torch.cat([text, picture], dim=1)
        if self.single:
            scale = self._lora_scale("to_out", identity)
            return states if scale == 0 else torch.add(states, self.to_out_lora(states), alpha=scale)
        picture = attn.to_out[1](self._linear("to_out", attn.to_out[0], picture.contiguous(), identity))
        return picture, attn.to_add_out(text.contiguous())

    def _picture(self, positions: int, identity: IdentityState | None) -> int:
        """Return how many of the last `positions` are the picture's; ValueError where the state says otherwise."""
        if identity is None:
            return positions
        cells = identity.patches(PATCH)
        if cells > positions or (cells != positions and not self.single):
            raise ValueError(
                f"a sequence of {positions} positions, and an identity state of a latent of {identity.height}x"
                f"{identity.width}: it has {cells} patches of {PATCH}x{PATCH}"
            )
        return cells


def _with_text(attn: FluxAttention, text: Tensor, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Return queries, keys and values (B, T + N, heads, d) of text (B, T, C) and picture (B, N, heads, d)."""
    layers = attn.add_q_proj, attn.add_k_proj, attn.add_v_proj
    texts = [layer(text).unflatten(-1, (attn.heads, -1)) for layer in layers]
    texts[:2] = attn.norm_added_q(texts[0]), attn.norm_added_k(texts[1])
    return [torch.cat([own, of], dim=1) for own, of in zip(texts, (query, key, value), strict=True)]


def joint_processor_for(
    attn: FluxAttention, width: int, rank: int, tokens: int, threshold: float
) -> JointSemanticActivatedAttention:
    """Return a new processor for a layer of a Flux transformer; LoRA and v' are zero, so it changes nothing yet."""
    return JointSemanticActivatedAttention(
        attn.inner_dim, width, rank, tokens, threshold, single=attn.added_kv_proj_dim is None
    )
