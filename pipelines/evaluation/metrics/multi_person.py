"""Metrics of pictures of several people: identity, number of faces, leakage from one person to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PictureScore:
    """The scores of one picture of P people; `assigned` gives for each person the index of its face or −1."""

    multi_id_similarity: float
    multi_id_min: float
    count_accuracy: float
    leakage: float
    assigned: tuple[int, ...]
    own: tuple[float, ...]


def score_picture(faces: np.ndarray, photos: list[np.ndarray]) -> PictureScore:
    """Score one picture by unit-norm embeddings: `faces` (F, d) found, `photos[p]` (K, d) real photos of person p.

    Faces are assigned to people so that the sum of similarities is largest (Hungarian method). Similarity is the mean
    cosine to the person's photos; leakage is the mean similarity of a person's face to the other people. Both are 0
    for a person without a face. The count is right where exactly P faces are found.
    """
    from scipy.optimize import linear_sum_assignment

    people = len(photos)
    cosines = np.zeros((people, len(faces)))
    if len(faces):
        cosines[:] = [(one @ faces.T).mean(0) for one in photos]
    assigned = [-1] * people
    for person, face in zip(*linear_sum_assignment(-cosines), strict=True):
        assigned[int(person)] = int(face)
    own = [float(cosines[person, face]) if face >= 0 else 0.0 for person, face in enumerate(assigned)]
    others = [
        float(np.mean([cosines[other, face] for other in range(people) if other != person])) if face >= 0 else 0.0
        for person, face in enumerate(assigned)
    ]
    return PictureScore(
        multi_id_similarity=float(np.mean(own)),
        multi_id_min=float(np.min(own)),
        count_accuracy=float(len(faces) == people),
        leakage=float(np.mean(others)),
        assigned=tuple(assigned),
        own=tuple(own),
    )
