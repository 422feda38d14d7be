"""Identity-Motion Reconfigurator (IMR): replace the motion in identity tokens (paper section 3.3).

ξ_pred = φ2(φ1(ξ_src, ψ_src), ψ_tgt); the key names are those of the published checkpoints.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, cat, nn

from model.network.face_encoder import PerceiverAttention, feed_forward
from model.network.lora import join_heads, split_heads


class SelfAttention(nn.Module):
    """Self-attention of normalised tokens, without a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, K, width) to (B, K, width)."""
        tokens = self.norm1(tokens)
        key, value = self.to_kv(tokens).chunk(2, dim=-1)
        states = F.scaled_dot_product_attention(*(split_heads(x, self.heads) for x in (self.to_q(tokens), key, value)))
        return self.to_out(join_heads(states))


def _stack(width: int, heads: int, depth: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.ModuleList(
            [PerceiverAttention(width, heads, width // heads), SelfAttention(width, heads), feed_forward(width)]
        )
        for _ in range(depth)
    )


def _run(stack: nn.ModuleList, tokens: Tensor, motion: Tensor) -> Tensor:
    for cross, own, forward in stack:  # type: ignore[misc]
        tokens = cross(motion, tokens) + tokens
        tokens = own(tokens) + tokens
        tokens = forward(tokens) + tokens
    return tokens


class Reconfigurator(nn.Module):
    """Map identity tokens of photos, (B, K, tokens_width), to tokens of the same people with another motion (the IMR).

    `motion_width` is the width of landmark features plus pooled text, `latents` the number of motion latents. `width`
    must be a multiple of `heads`. With `residual` the result is ξ_src + Δ, Δ initially 0; published: without residual.
    """

    def __init__(
        self,
        tokens_width: int,
        motion_width: int,
        *,
        width: int = 1024,
        heads: int = 16,
        depth: int = 1,
        latents: int = 4,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"reconfigurator width {width}: expected a multiple of its {heads} heads")
        self.latents = latents
        self.residual = residual
        self.feature_fusion = nn.Sequential(
            nn.LayerNorm(motion_width),
            nn.Linear(motion_width, width),
            nn.GELU(),
            nn.LayerNorm(width),
            nn.Linear(width, latents * width),
            nn.GELU(),
        )
        self.norm_in = nn.LayerNorm(tokens_width)
        self.proj_in = nn.Linear(tokens_width, width)
        self.disentangleNet = _stack(width, heads, depth)
        self.entangleNet = _stack(width, heads, depth)
        self.norm_out = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, tokens_width)
        if residual:
            nn.init.zeros_(self.proj_out.weight)
            nn.init.zeros_(self.proj_out.bias)

    def motion(self, landmarks: Tensor, text: Tensor) -> Tensor:
        """Return motion latents ψ (B, latents, width) from landmark features (B, L) and pooled text (B, T)."""
        return self.feature_fusion(cat([landmarks, text], dim=-1)).unflatten(-1, (self.latents, -1))

    def forward(
        self,
        tokens: Tensor,
        source_landmarks: Tensor,
        source_text: Tensor,
        target_landmarks: Tensor,
        target_text: Tensor,
    ) -> Tensor:
        """Return the tokens of every target, (T, K, tokens_width).

        `tokens` (B, K, tokens_width), `source_…` (B, …); `target_…` (T, …) with T a multiple of B: the first
        T / B targets belong to the first source, and so on.
        """
        sources, targets = len(tokens), len(target_text)
        if targets % sources:
            raise ValueError(f"{targets} targets for {sources} sources: expected a multiple")
        identity = _run(
            self.disentangleNet, self.proj_in(self.norm_in(tokens)), self.motion(source_landmarks, source_text)
        )
        identity = identity.repeat_interleave(targets // sources, dim=0)
        out = _run(self.entangleNet, identity, self.motion(target_landmarks, target_text))
        out = self.proj_out(self.norm_out(out))
        return tokens.repeat_interleave(targets // sources, dim=0) + out if self.residual else out
