"""Face encoder: identity tokens from an ArcFace embedding and CLIP states of the face (paper section 3.1).

Layout and key names are those of IP-Adapter-FaceID-Plus, as in the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.lora import join_heads, split_heads


class PerceiverAttention(nn.Module):
    """Attention of tokens to [norm1(context) ‖ norm2(tokens)], with norm2(tokens) as queries and no residual."""

    def __init__(self, width: int, heads: int, head_width: int = 64) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Map context (B, T, width) and tokens (B, K, width) to (B, K, width)."""
        context, tokens = self.norm1(context), self.norm2(tokens)
        query = split_heads(self.to_q(tokens), self.heads)
        key, value = self.to_kv(torch.cat([context, tokens], dim=1)).chunk(2, dim=-1)
        states = F.scaled_dot_product_attention(query, split_heads(key, self.heads), split_heads(value, self.heads))
        return self.to_out(join_heads(states))


def feed_forward(width: int, ratio: int = 4) -> nn.Sequential:
    """Return LayerNorm, Linear ×`ratio`, GELU, Linear; the linear layers have no bias."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, ratio * width, bias=False),
        nn.GELU(),
        nn.Linear(ratio * width, width, bias=False),
    )


class FacePerceiverResampler(nn.Module):
    """`depth` layers in which tokens attend to CLIP's image features, each followed by a feed-forward layer.

    `output` is the width of the result, by default that of the tokens.
    """

    def __init__(
        self, width: int, image_width: int, depth: int = 4, head_width: int = 64, output: int | None = None
    ) -> None:
        super().__init__()
        output = output or width
        self.proj_in = nn.Linear(image_width, width)
        self.proj_out = nn.Linear(width, output)
        self.norm_out = nn.LayerNorm(output)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(width, width // head_width, head_width), feed_forward(width)])
            for _ in range(depth)
        )

    def forward(self, tokens: Tensor, clip_states: Tensor) -> Tensor:
        """Map tokens (B, K, width) and CLIP states (B, T, image_width) to (B, K, output)."""
        context = self.proj_in(clip_states)
        for attention, forward in self.layers:
            tokens = attention(context, tokens) + tokens
            tokens = forward(tokens) + tokens
        return self.norm_out(self.proj_out(tokens))


class FaceEncoder(nn.Module):
    """Compute identity tokens (B, tokens, width) from embeddings (B, 512) and CLIP states of crops (B, T, image_width).

    `width` is the cross-attention width of the UNet; raise ValueError if it is not a multiple of 64. The embedding is
    projected to tokens; the result is the output of the resampler for them, or with `depth` 0, which has no resampler,
    these tokens.
    """

    def __init__(self, width: int, image_width: int, tokens: int = 4, embedding: int = 512, depth: int = 4) -> None:
        super().__init__()
        if depth and width % 64:
            raise ValueError(f"cross-attention width {width}: the face encoder needs a multiple of 64")
        self.tokens = tokens
        self.width = width
        self.proj = nn.Sequential(
            nn.Linear(embedding, 2 * embedding), nn.GELU(), nn.Linear(2 * embedding, tokens * width)
        )
        self.norm = nn.LayerNorm(width)
        self.perceiver_resampler = FacePerceiverResampler(width, image_width, depth) if depth else None

    def forward(self, embeddings: Tensor, clip_states: Tensor, shortcut: float | None = None) -> Tensor:
        """Return the tokens, or with `shortcut` s, as some published checkpoints, projected embedding + s · tokens."""
        projected = self.norm(self.proj(embeddings).unflatten(-1, (self.tokens, self.width)))
        if self.perceiver_resampler is None:
            return projected
        tokens = self.perceiver_resampler(projected, clip_states)
        return tokens if shortcut is None else projected + shortcut * tokens
