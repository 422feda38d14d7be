"""The judge of text: a CLIP model that says how well a picture follows its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.errors import UserError

_CHUNK = 64


class TextJudge:
    """Pictures and texts in one space; all features are unit-norm float32 (N, d)."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        if not (folder / "config.json").is_file():
            raise UserError(
                f"evaluate.judges.clip = {folder}: no such folder; expected a CLIPModel in its saved layout"
            )
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self._model: Any = CLIPModel.from_pretrained(folder, local_files_only=True).float().eval().to(device)
        self._tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        # The processor that needs torchvision is the default; this one gives the same numbers without it.
        self._processor: Any = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        self._device = device

    def pictures(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the features of N pictures (H, W, 3) uint8 RGB."""
        import torch
        from PIL import Image

        features = []
        for start in range(0, len(images), _CHUNK):
            chunk = [Image.fromarray(image) for image in images[start : start + _CHUNK]]
            pixels = self._processor(images=chunk, return_tensors="pt")["pixel_values"].to(self._device)
            with torch.inference_mode():
                features.append(self._model.get_image_features(pixel_values=pixels).pooler_output.cpu().numpy())
        return self._unit(features, self._model.config.projection_dim)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the features of N texts; words beyond the model's 77 tokens are left out, as the model itself does."""
        import torch

        features = []
        for start in range(0, len(texts), _CHUNK):
            tokens = self._tokenizer(
                list(texts[start : start + _CHUNK]),
                padding="max_length",
                truncation=True,
                max_length=self._model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self._device)
            with torch.inference_mode():
                features.append(self._model.get_text_features(**tokens).pooler_output.cpu().numpy())
        return self._unit(features, self._model.config.projection_dim)

    @staticmethod
    def _unit(chunks: list[np.ndarray], width: int) -> np.ndarray:
        features = np.concatenate(chunks) if chunks else np.zeros((0, width), np.float32)
        return (features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)).astype(np.float32)
