"""What anchoring reads of facial parts: their pictures, where they are in the photos, and which words name them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.face.face_parts import MASK_SIDE, NOT_NAMED, PARTS, described, part_masks, part_places
from model.network.base import Base
from model.training.encode import RecordEncoder
from model.training.photos import Photos
from model.training.records import Records


@dataclass(frozen=True)
class PartRecords:
    """CLIP states of the parts of photos (R, T, W), landmarks of the photos, and `places` (texts, R) of words."""

    states: Records
    landmarks: Records
    places: np.ndarray

    def masks(self, rows: np.ndarray) -> Tensor:
        """Return the regions of PARTS in the photos at `rows`, (B, R, MASK_SIDE, MASK_SIDE) float32 of 0 and 1."""
        return torch.from_numpy(np.stack([part_masks(points, MASK_SIDE) for points in self.landmarks[rows]]))

    def places_of(self, texts: np.ndarray, without: np.ndarray) -> Tensor:
        """Return the tokens (B, R) int64 that name the parts in `texts` (B,), NOT_NAMED in the rows `without` (B,)."""
        return torch.from_numpy(np.where(without[:, None], NOT_NAMED, self.places[texts]))


def part_records(base: Base, photos: Photos, encoder: RecordEncoder) -> tuple[list[str], PartRecords]:
    """Return the texts that name the parts of `photos`, every prompt with a description of the face, and the parts.

    An empty text behind the others names nothing.
    """
    texts = [described(base.tokenizer, prompt) for prompt in photos.prompts]
    nothing = [NOT_NAMED] * len(PARTS)
    places = np.array([*(part_places(base.tokenizer, text) for text in texts), nothing], np.int64)
    return texts, PartRecords(encoder.part_states(base, photos), encoder.landmarks(photos), places)
