"""Metrics of identity: similarity to real photos, copying of the reference, nearest person.

Embeddings are the recogniser judge's, unit norm. A picture without a face counts as 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def similarity(embeddings: np.ndarray, found: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Return each picture's mean cosine (N,) to its `others`, N arrays (K, d); 0 where no face was found.

    `embeddings` (N, d), `found` (N,) bool.
    """
    cosines = [float((photos @ one).mean()) for one, photos in zip(embeddings, others, strict=True)]
    return np.where(found, np.asarray(cosines, float), 0.0)


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the angle (radians, 0 … π) between unit vectors (…, d)."""
    return np.arccos(np.clip((a * b).sum(-1), -1.0, 1.0))


def copy_paste(
    embeddings: np.ndarray, found: np.ndarray, references: np.ndarray, others: Sequence[np.ndarray]
) -> np.ndarray:
    """Return (angle to the other photo − angle to the reference) / angle between the two photos, mean over others.

    1 is a copy of the reference, 0 equally near to both (also where no face was found), negative nearer to the other
    photo. `embeddings` and `references` (N, d), `others` N arrays (K, d).
    """
    values = np.zeros(len(embeddings))
    for row in np.flatnonzero(found).tolist():
        photos = others[row]
        between = np.maximum(angle(photos, references[row]), 1e-6)
        values[row] = float(
            ((angle(photos, embeddings[row]) - angle(references[row], embeddings[row])) / between).mean()
        )
    return values


def own_over_other(embeddings: np.ndarray, found: np.ndarray, person: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Return 1 where the face is nearest to the right person, else 0 (also where no face was found).

    `gallery` (P, d) has one unit vector per person, `person` (N,) the row of the right one.
    """
    nearest = (embeddings @ gallery.T).argmax(1)
    return (found & (nearest == person)).astype(float)


def centroid(photos: np.ndarray) -> np.ndarray:
    """Return the unit-norm mean (d,) of unit vectors (K, d)."""
    mean = photos.mean(0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)
