"""The identity term of anchoring: the predicted picture, as the conditioning recogniser sees it, is the same person.

Noise prediction alone spends little on what makes a face recognisable. From the prediction at a noisy step follow the
clean latents it stands for; decoded and aligned, their embedding is held to that of the photo (as in PuLID, Guo et al.
2024, with one step for four). The recogniser must be the one that conditions the model: a judge that had trained it
would judge nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from model.network.base import unscale_latents
from model.training.alignment import aligned_faces, alignment, keypoint_shares
from model.training.recognition_network import RecognitionNetwork

if TYPE_CHECKING:
    from model.training.photos import Photos

# Stored photos are smaller than those that were embedded: of small real faces the right recogniser says .75.
_CHECKED, _ALIKE = 8, 0.4


class IdentityLoss:
    """1 − cosine between the embeddings of predicted pictures and of their photos."""

    def __init__(self, network: RecognitionNetwork, vae: Any) -> None:
        self._network, self._vae = network, vae

    def __call__(self, clean: Tensor, embeddings: Tensor, alignments: Tensor) -> Tensor:
        """Return the loss, a scalar, of scaled latents `clean` (B, C, h, w).

        `embeddings` (B, d), unit norm, and `alignments` (B, 2, 3), as `alignment` gives them, are the photos'.
        """
        if not len(clean):
            return clean.sum()
        with torch.autocast(clean.device.type, enabled=False):
            latents = unscale_latents(self._vae, clean.to(self._vae.dtype))
            pictures = self._vae.decode(latents, return_dict=False)[0].clamp(-1, 1)
            found = self._network(aligned_faces(pictures, alignments, self._network.side))
        return 1 - (found * embeddings).sum(1).mean()


def conditioning_recogniser(pack: Path, photos: Photos) -> RecognitionNetwork:
    """Return the recogniser of a face pack; ValueError where it is not the one that embedded the photos."""
    network = RecognitionNetwork(recogniser_of(pack)).eval()
    rows = np.unique(np.linspace(0, len(photos) - 1, _CHECKED).astype(int))
    items = list(photos.content(rows))
    pictures = torch.from_numpy(np.stack([item.image for item in items])).permute(0, 3, 1, 2).float() / 127.5 - 1
    places = np.stack([alignment(keypoint_shares(item.keypoints, *item.image.shape[:2])) for item in items])
    with torch.no_grad():
        found = network(aligned_faces(pictures, torch.from_numpy(places), network.side))
    known = torch.from_numpy(np.stack([item.embedding for item in items]))
    if found.shape != known.shape:
        raise ValueError(f"{pack}: gives {found.shape[1]} numbers a face, the photos' embeddings have {known.shape[1]}")
    cosine = float((found * known).sum(1).median())
    if not cosine >= _ALIKE:
        raise ValueError(
            f"{pack}: its recogniser sees others in the stored photos than their embeddings say (median cosine "
            f"{cosine:.2f} over {len(items)} photos, expected at least {_ALIKE}): they were preprocessed with another "
            "pack (run preprocess again), or are stored too small for it"
        )
    return network


def recogniser_of(pack: Path) -> Path:
    """Return the ONNX file of a face pack that insightface takes for the recogniser; ValueError where there is none."""
    from insightface.model_zoo import get_model

    for file in sorted(pack.glob("*.onnx")):
        if getattr(get_model(str(file), providers=["CPUExecutionProvider"]), "taskname", None) == "recognition":
            return file
    raise ValueError(f"{pack}: no recognition network there; expected a face pack of insightface")
