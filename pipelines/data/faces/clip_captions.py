"""Choose prompts and expressions by CLIP: from a closed list of texts, the one most similar to the picture.

A list has an answer for every picture, also for one that shows no clothes. With a least confidence, texts that name
nothing are on the lists, too, and what is stated must be surer than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES, compose
from pipelines.data.faces.protocols import Caption, CaptionRequest

_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "gray", "white")
_GARMENTS = ("t-shirt", "shirt", "sweater", "hoodie", "suit", "dress")
_PLACES = ("on a beach", "in a park", "in a city", "in the mountains", "in a library", "in a room", "at night")

CLOTHES: tuple[str, ...] = tuple(
    f"{'an' if colour == 'orange' else 'a'} {colour} {garment}" for colour in _COLOURS for garment in _GARMENTS
)
SETTINGS: tuple[str, ...] = (*(f"{colour} background" for colour in _COLOURS), *_PLACES)

# Texts for pictures that show neither clothes nor a place.
_NOTHING = ("a close-up photo of a face", "a photo of a face", "a photo of a person")
_CHUNK = 32
# The expression is recognised in the face box enlarged by this factor.
_FACE_MARGIN = 1.5
# Similarities are rounded to this many decimals, so that rounding errors of sums do not change the choice.
_DECIMALS = 4


class ClipCaptions:
    """CaptionSource of pipelines.data.faces.protocols on a CLIPModel folder with tokenizer and preprocessor."""

    def __init__(self, folder: Path, least: float = 0.0) -> None:
        """Take a model from `folder`; `least`: minimum probability of what is stated; 0: the best always is."""
        self._folder = folder
        self._least = least
        self._clip: Any = None
        self._texts: dict[str, np.ndarray] = {}

    def describe(self, requests: Sequence[CaptionRequest]) -> list[Caption]:
        """Return, for every request, the prompt (clothes and background) and the expression that fit best.

        Below the least confidence, clothes, background or expression are left out; a prompt without either is None.
        """
        self._open()
        pictures = self._features([request.image for request in requests])
        faces = self._features([_face(request.image, request.bbox) for request in requests])
        clothes = self._choose(pictures, "clothes", CLOTHES)
        settings = self._choose(pictures, "settings", SETTINGS)
        expressions = self._choose(faces, "expressions", EXPRESSIONS)
        return [
            Caption(_prompt(worn, behind), shown, confidence=confidence, source="clip")
            for (worn, _), (behind, _), (shown, confidence) in zip(clothes, settings, expressions, strict=True)
        ]

    def _choose(self, features: np.ndarray, name: str, words: Sequence[str]) -> list[tuple[str | None, float]]:
        """Return for each picture the word that fits best, None below the least confidence, and its probability."""
        texts = self._texts[name]
        if self._least and name != "expressions":
            texts = np.concatenate([texts, self._texts["nothing"]])
        similar = np.round(features @ texts.T, _DECIMALS)
        best = similar.argmax(1)
        scaled = np.exp((similar - similar.max(1, keepdims=True)) * self._sharpness)
        confidence = 1 / scaled.sum(1)
        return [
            (words[row] if row < len(words) and sure >= self._least else None, float(sure))
            for row, sure in zip(best, confidence, strict=True)
        ]

    def _open(self) -> None:
        if self._clip is not None:
            return
        import torch
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._clip = CLIPModel.from_pretrained(self._folder, local_files_only=True).float().eval().to(self._device)
        self._tokenizer: Any = CLIPTokenizer.from_pretrained(self._folder, local_files_only=True)
        self._processor: Any = CLIPImageProcessorPil.from_pretrained(self._folder, local_files_only=True)
        self._sharpness = self._clip.logit_scale.detach().exp().item()
        self._texts = {
            "nothing": self._text_features([(text,) for text in _NOTHING]),
            "clothes": self._text_features([(f"a photo of a person wearing {worn}",) for worn in CLOTHES]),
            "settings": self._text_features([(f"a photo of a person, {behind}",) for behind in SETTINGS]),
            "expressions": self._text_features(
                [
                    (f"a photo of a person with a {word} face", *(compose(word, pose) for pose in POSES))
                    for word in EXPRESSIONS
                ]
            ),
        }

    def _features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        import torch
        from PIL import Image

        features = []
        for start in range(0, len(images), _CHUNK):
            chunk = [Image.fromarray(image) for image in images[start : start + _CHUNK]]
            pixels = self._processor(images=chunk, return_tensors="pt")["pixel_values"].to(self._device)
            with torch.inference_mode():
                features.append(self._clip.get_image_features(pixel_values=pixels).pooler_output.cpu().numpy())
        return _unit(np.concatenate(features))

    def _text_features(self, groups: Sequence[tuple[str, ...]]) -> np.ndarray:
        """Return one unit-norm feature per group: the mean over its wordings."""
        import torch

        length = self._clip.config.text_config.max_position_embeddings
        rows = []
        for group in groups:
            tokens = self._tokenizer(
                list(group), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            ).to(self._device)
            with torch.inference_mode():
                rows.append(_unit(self._clip.get_text_features(**tokens).pooler_output.cpu().numpy()).mean(0))
        return _unit(np.stack(rows))


def _prompt(worn: str | None, behind: str | None) -> str | None:
    if worn is None and behind is None:
        return None
    return ", ".join(filter(None, ["a photo of a person" + (f" wearing {worn}" if worn else ""), behind]))


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _face(image: np.ndarray, bbox: np.ndarray) -> np.ndarray:
    """Return the square around a face box with a margin, cut at the borders of the picture."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in bbox)
    half = max(x1 - x0, y1 - y0) * _FACE_MARGIN / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    left, top = max(0, int(x - half)), max(0, int(y - half))
    right, bottom = min(width, int(np.ceil(x + half))), min(height, int(np.ceil(y + half)))
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]
