"""Preprocess pictures for a CLIP image encoder, in torch on whole batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.formats import read_object

_MOST_PIXELS = 4096
# Mean and standard deviation of CLIP's training pictures, per colour channel.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# PIL's resampling numbers.
_MODES = {0: "nearest", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class CropTransform:
    """The parameters of CLIPImageProcessor: resize the shorter side, cut the centre, rescale, normalise."""

    size: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = 3
    rescale: float = 1 / 255

    @classmethod
    def from_folder(cls, folder: Path) -> CropTransform:
        """Read preprocessor_config.json of an image encoder's folder; raise ValueError if missing or incomplete."""
        file = Path(folder) / "preprocessor_config.json"
        if not file.is_file():
            raise ValueError(f"{file}: no such file; expected the CLIPImageProcessor parameters of the image encoder")
        return cls.from_config(read_object(file, "copy the image encoder again"), str(file))

    @classmethod
    def from_config(cls, config: dict[str, Any], origin: str) -> CropTransform:
        """Read a CLIPImageProcessor's configuration, called `origin` in errors; raise ValueError if it does not fit."""
        try:
            size, crop = config["size"], config["crop_size"]
            transform = cls(
                size=int(size["shortest_edge"] if isinstance(size, dict) else size),
                crop=int(crop["height"] if isinstance(crop, dict) else crop),
                mean=tuple(map(float, config["image_mean"])),
                std=tuple(map(float, config["image_std"])),
                resample=int(config.get("resample", 3)),
                rescale=float(config.get("rescale_factor", 1 / 255)),
            )
        except KeyError as error:
            raise ValueError(f"{origin}: {error} missing; expected the parameters of a CLIPImageProcessor") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{origin}: {error}; expected the parameters of a CLIPImageProcessor") from None
        if len(transform.mean) != 3 or len(transform.std) != 3:
            raise ValueError(f"{origin}: image_mean and image_std: expected three numbers each")
        if not (0 < transform.size <= _MOST_PIXELS and 0 < transform.crop <= _MOST_PIXELS):
            raise ValueError(f"{origin}: size {transform.size}, crop {transform.crop}; expected 1 to {_MOST_PIXELS}")
        if transform.resample not in _MODES:
            raise ValueError(f"{origin}: resample {transform.resample}; expected one of {sorted(_MODES)}")
        return transform

    @classmethod
    def openai(cls, side: int) -> CropTransform:
        """Return the processing of OpenAI's CLIP, the default of transformers, for an encoder of `side` pixels."""
        return cls(size=side, crop=side, mean=CLIP_MEAN, std=CLIP_STD)

    def config(self) -> dict[str, Any]:
        """Return the arguments of an equivalent CLIPImageProcessor."""
        return {
            "size": {"shortest_edge": self.size},
            "crop_size": {"height": self.crop, "width": self.crop},
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "resample": self.resample,
            "rescale_factor": self.rescale,
        }

    def __call__(self, pictures: Any, device: torch.device | str = "cpu") -> Tensor:
        """Convert (B, H, W, 3) uint8 RGB to (B, 3, crop, crop) float32, normalised, on `device`."""
        if not isinstance(pictures, Tensor):
            pictures = torch.from_numpy(np.ascontiguousarray(pictures))
        pixels = pictures.to(device).permute(0, 3, 1, 2).float()
        height, width = pixels.shape[-2:]
        if min(height, width) != self.size:
            ratio = self.size / min(height, width)
            target = (max(self.size, int(height * ratio)), max(self.size, int(width * ratio)))
            mode = _MODES[self.resample]
            pixels = F.interpolate(pixels, target, mode=mode, antialias=mode != "nearest")
            pixels = pixels.round().clamp(0, 255)
        top, left = (pixels.shape[-2] - self.crop) // 2, (pixels.shape[-1] - self.crop) // 2
        if top < 0 or left < 0:
            raise ValueError(f"crop {self.crop} is larger than the resized picture {tuple(pixels.shape[-2:])}")
        pixels = pixels[..., top : top + self.crop, left : left + self.crop] * self.rescale
        mean, std = (torch.tensor(x, device=pixels.device).view(1, -1, 1, 1) for x in (self.mean, self.std))
        return (pixels - mean) / std


def squared(image: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3) uint8, with bars of CLIP's mean colour that make it a square; a square as it is.

    CLIP's own processor would cut off the people at both ends.
    """
    height, width = image.shape[:2]
    if height == width:
        return image
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = np.round(np.array(CLIP_MEAN) * 255)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square
