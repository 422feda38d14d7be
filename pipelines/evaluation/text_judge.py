"""The text judge: a CLIP model that measures how well a picture follows its prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.errors import UserError

_CHUNK = 64


class NoTextJudge:
    """Stands in where no CLIP model is named: its vectors mean nothing, and the metrics that they give are withheld."""

    def pictures(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the same vector for each of N pictures."""
        return np.ones((len(images), 1), np.float32)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the same vector for each of N texts."""
        return np.ones((len(texts), 1), np.float32)


class TextJudge:
    """Features of pictures and texts in one space, unit-norm float32 (N, d)."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        if not (folder / "config.json").is_file():
            raise UserError(
                f"evaluate.judges.clip = {folder}: no such folder; expected a CLIPModel in its saved layout"
            )
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self._model: Any = CLIPModel.from_pretrained(folder, local_files_only=True).float().eval().to(device)
        self._tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        # The default processor needs torchvision; this one gives the same numbers without it.
        self._processor: Any = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        self._device = device

    def pictures(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the features of N pictures (H, W, 3) uint8 RGB; those that are not square get bars."""
        from PIL import Image

        from model.network.crop_transform import squared

        def features(chunk: Sequence[np.ndarray]) -> Any:
            shown = [Image.fromarray(squared(image)) for image in chunk]
            pixels = self._processor(images=shown, return_tensors="pt")["pixel_values"].to(self._device)
            return self._model.get_image_features(pixel_values=pixels)

        return self._unit(images, features)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the features of N texts, each cut to the model's longest."""

        def features(chunk: Sequence[str]) -> Any:
            tokens = self._tokenizer(
                list(chunk),
                padding="max_length",
                truncation=True,
                max_length=self._model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self._device)
            return self._model.get_text_features(**tokens)

        return self._unit(texts, features)

    def _unit(self, items: Sequence[Any], features: Callable[[Sequence[Any]], Any]) -> np.ndarray:
        """Return unit-norm features (N, d) of `items`, computed in chunks."""
        import torch

        with torch.inference_mode():
            chunks = [
                features(items[start : start + _CHUNK]).pooler_output.cpu().numpy()
                for start in range(0, len(items), _CHUNK)
            ]
        found = np.concatenate(chunks or [np.zeros((0, self._model.config.projection_dim), np.float32)])
        return (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)).astype(np.float32)
