"""The identity term of anchoring: the embedding of the predicted picture has to match that of the photo.

The noise-prediction loss gives little weight to what makes a face recognisable. Here, a prediction is converted to
clean latents, which are decoded and aligned; their embedding is compared with the photo's (as in PuLID, Guo et al.
2024, which takes four steps instead of one). The recogniser is the one that conditions the model, not the one that
evaluates it: the score of a recogniser used in training would be biased.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from model.face.recogniser_file import recogniser_of
from model.network.latents import unscale_latents
from model.training.alignment import aligned_faces, alignment, normalised_keypoints
from model.training.recognition_network import RecognitionNetwork

if TYPE_CHECKING:
    from model.training.photos import Photos

# Stored photos are smaller than the originals that were embedded: on small real faces, the right recogniser gives 0.75.
_CHECKED_PHOTOS, _MIN_COSINE = 8, 0.4


class IdentityLoss:
    """1 − cosine between the embeddings of predicted pictures and of their photos."""

    def __init__(self, network: RecognitionNetwork, vae: Any) -> None:
        self._network, self._vae = network, vae

    def __call__(self, clean: Tensor, embeddings: Tensor, alignments: Tensor) -> Tensor:
        """Return the loss, a scalar, of scaled latents `clean` (B, C, h, w); 0 if B is 0.

        `embeddings` (B, d), of unit norm, and `alignments` (B, 2, 3) (see `alignment`) are those of the photos.
        """
        if not len(clean):
            return clean.sum()
        with torch.autocast(clean.device.type, enabled=False):
            latents = unscale_latents(self._vae, clean.to(self._vae.dtype))
            pictures = self._vae.decode(latents, return_dict=False)[0].clamp(-1, 1)
            found = self._network(aligned_faces(pictures, alignments, self._network.side))
        return 1 - (found * embeddings).sum(1).mean()


def conditioning_recogniser(pack: Path, photos: Photos) -> RecognitionNetwork:
    """Return the recogniser of a face pack; raise ValueError if it is not the one that embedded the photos."""
    network = RecognitionNetwork(recogniser_of(pack)).eval()
    rows = np.unique(np.linspace(0, len(photos) - 1, _CHECKED_PHOTOS).astype(int))
    items = list(photos.content(rows))
    pictures = torch.from_numpy(np.stack([item.image for item in items])).permute(0, 3, 1, 2).float() / 127.5 - 1
    alignments = np.stack([alignment(normalised_keypoints(item.keypoints, *item.image.shape[:2])) for item in items])
    with torch.no_grad():
        found = network(aligned_faces(pictures, torch.from_numpy(alignments), network.side))
    expected = torch.from_numpy(np.stack([item.embedding for item in items]))
    if found.shape != expected.shape:
        raise ValueError(
            f"{pack}: its embeddings have {found.shape[1]} numbers, those of the photos {expected.shape[1]}"
        )
    cosine = float((found * expected).sum(1).median())
    if not cosine >= _MIN_COSINE:
        raise ValueError(
            f"{pack}: its embeddings of the stored photos differ from those of preprocessing (median cosine "
            f"{cosine:.2f} over {len(items)} photos, expected at least {_MIN_COSINE}): they were preprocessed with "
            "another pack (run preprocess again), or they are stored too small for this one"
        )
    return network
