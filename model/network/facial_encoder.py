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

    def encode(self, states: Tensor) -> Tensor:
        """Return one vector a part (B, R, text_width) from CLIP states (B, R, t, image_width) of R parts."""
        return self.visual_projection.encode(states.flatten(0, 1)).unflatten(0, states.shape[:2])

    def fuse(self, text: Tensor, parts: Tensor, places: Tensor) -> Tensor:
        """Return text states (B, T, D) with vectors of parts (B, R, D) fused into words; `text` stays as it is.

        `places` (B, R) int64: the token that names a part, below 0 where none does. No two parts have one token.
        """
        length = text.shape[1]
        # Parts without a word are fused into one behind the text, so that nothing is read from the device.
        padded = F.pad(text, (0, 0, 0, 1))
        at = torch.where(places < 0, length, places)[..., None].expand(-1, -1, text.shape[-1])
        fused = self.fuse_module(padded.gather(1, at), parts)
        return padded.scatter(1, at, fused.to(text.dtype))[:, :length]

    def forward(self, text: Tensor, states: Tensor, places: Tensor) -> Tensor:
        """Return text states (B, T, D) with the parts in them, from CLIP states of their pictures (see `fuse`)."""
        return self.fuse(text, self.encode(states), places)
