"""FacialEncoder: fuse pictures of facial parts into the words that name them (ConsistentID, section 3.2).

Layout and key names are those of the published checkpoints (Huang et al., arXiv 2404.16771).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.face_encoder import FacePerceiverResampler

_HEAD_WIDTH = 64


class PartResampler(FacePerceiverResampler):
    """One vector for each picture: a learned token of `width` that attends to its CLIP states, mapped to `output`."""

    def __init__(self, width: int, image_width: int, output: int, depth: int, head_width: int = _HEAD_WIDTH) -> None:
        super().__init__(width, image_width, depth, head_width, output=output)
        self.latents = nn.Parameter(torch.randn(1, 1, width) / width**0.5)

    def encode(self, states: Tensor) -> Tensor:
        """Map CLIP states (N, T, image_width) to (N, output)."""
        return self(self.latents.expand(len(states), -1, -1), states)[:, 0]


class FusionMLP(nn.Module):
    """LayerNorm, Linear, GELU, Linear; the inner width is that of the output."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(inputs)
        self.fc1 = nn.Linear(inputs, outputs)
        self.fc2 = nn.Linear(outputs, outputs)

    def forward(self, states: Tensor) -> Tensor:
        """Map (N, inputs) to (N, outputs)."""
        return self.fc2(F.gelu(self.fc1(self.layernorm(states))))


class PartFusion(nn.Module):
    """Fuse vectors of facial parts into word embeddings, both of width `width`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp1 = FusionMLP(2 * width, width)
        self.mlp2 = FusionMLP(width, width)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, words: Tensor, parts: Tensor) -> Tensor:
        """Map words (N, width) and their parts (N, width) to the fused words (N, width)."""
        fused = self.mlp1(torch.cat([words, parts], dim=-1)) + words
        return self.layer_norm(self.mlp2(fused) + fused)


class FacialEncoder(nn.Module):
    """Text states in which the words that name facial parts also carry the pictures of these parts.

    `text_width` is the cross-attention width of the UNet, `image_width` that of CLIP's states; `width` and `depth` are
    those of the resampler. Raise ValueError if the width is not a multiple of the heads' width.
    """

    def __init__(
        self, text_width: int, image_width: int, width: int = 1024, depth: int = 8, head_width: int = _HEAD_WIDTH
    ) -> None:
        super().__init__()
        if width % head_width:
            raise ValueError(f"width {width} of the facial encoder: expected a multiple of {head_width}")
        self.visual_projection = PartResampler(width, image_width, text_width, depth, head_width)
        self.fuse_module = PartFusion(text_width)

    def forward(self, text: Tensor, states: Tensor, words: Tensor, shown: Tensor) -> Tensor:
        """Return text states (B, T, D) with the parts in them; `text` (B, T, D) stays as it is.

        `states` (B, R, t, image_width): CLIP states of the pictures of R parts. `words` (B, T) bool: the tokens that
        name a part; `shown` (B, R) bool: the parts that are there. In each text, the first word belongs to the first
        part that is there, and so on; raise ValueError where their numbers differ.
        """
        named, present = words.sum(dim=1), shown.sum(dim=1)
        if not torch.equal(named, present):
            raise ValueError(f"words of facial parts {named.tolist()}, pictures of parts {present.tolist()}: not equal")
        if not bool(words.any()):
            return text
        parts = self.visual_projection.encode(states[shown])
        fused = self.fuse_module(text[words], parts.to(text.dtype))
        return text.masked_scatter(words[..., None], fused.to(text.dtype))
