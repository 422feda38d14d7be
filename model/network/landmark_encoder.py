"""Landmark encoder of the IMR: one feature vector from a 96×96 picture of 68 points (paper section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Kernel size of each convolution, by stage; the first one of stages 1 to 5 halves the picture, stage 6 has no padding.
_KERNELS = ((7,), (3, 3, 3), (3, 3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3), (3, 1))


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, addition of the input if `residual`, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, padding: int, residual: bool) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs))
        self.residual = residual

    def forward(self, picture: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        out = self.conv_block(picture)
        return torch.relu(out + picture if self.residual else out)


class LandmarkEncoder(nn.Module):
    """Map landmark pictures (B, 1, 96, 96) in {-1, 1} to features (B, features) ≥ 0.

    From stage to stage, channels double from `width` to 32 · `width` (published checkpoints: 16 to 512).
    """

    def __init__(self, features: int = 768, width: int = 16) -> None:
        super().__init__()
        stages = []
        inputs = 1
        for number, kernels in enumerate(_KERNELS):
            blocks = []
            for position, kernel in enumerate(kernels):
                outputs = width * 2 ** min(number, 5) if kernel > 1 else features
                stride = 2 if position == 0 and 1 <= number <= 5 else 1
                residual = position > 0 and number < 6
                padding = 0 if number == 6 else kernel // 2
                blocks.append(ConvBlock(inputs, outputs, kernel, stride=stride, padding=padding, residual=residual))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.ModuleList(stages)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return one feature vector per picture."""
        for stage in self.blocks:
            pictures = stage(pictures)
        return pictures.flatten(1)
