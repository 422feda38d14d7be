"""Metrics of pictures of several people: identity, expression and pose of each, number of faces, leakage between them.

Every metric is one value per picture, a mean over its people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AskedPeople:
    """P people of a picture.

    `photos[p]` (K, d) unit-norm embeddings of real photos of person p, `middles` (P, 2) x y of their boxes in [0, 1],
    `motions` (P, 2) the asked expression and pose as class indices; nobody is asked what another is.
    """

    photos: list[np.ndarray]
    middles: np.ndarray
    motions: np.ndarray


@dataclass(frozen=True)
class FoundFaces:
    """F faces of a picture: `embeddings` (F, d) unit norm, `middles` and `motions` (F, 2) as in AskedPeople."""

    embeddings: np.ndarray
    middles: np.ndarray
    motions: np.ndarray


@dataclass(frozen=True)
class PictureScore:
    """The scores of one picture of P people.

    Of each person: `assigned` the index of the face or −1, `own` the similarity, `shows` (P, 2) bool whether the face
    has the asked expression and pose.
    """

    multi_id_similarity: float
    multi_id_min: float
    multi_expression_accuracy: float
    multi_pose_accuracy: float
    binding: float
    count_accuracy: float
    leakage: float
    assigned: tuple[int, ...]
    own: tuple[float, ...]
    shows: np.ndarray


def score_picture(faces: FoundFaces, people: AskedPeople) -> PictureScore:
    """Score one picture; a person without a face has the worst value of everything.

    Faces are assigned to people (Hungarian method) so that similarities minus distances, in shares of the picture from
    the middle of a face to that of the box, have the largest sum: by identity where faces differ enough, otherwise
    by place. Similarity is the mean cosine to the person's photos, 0 without a face. Leakage is the mean similarity of
    a person's face to the other people, 1 without a face. Binding is the share of asked expressions and poses that the
    right person shows, minus the mean share that each of the others shows: 1 where everybody does what they were asked,
    0 where expressions and poses are anywhere, −1 where two people do what the other was asked. The count is right
    where exactly P faces are found.
    """
    from scipy.optimize import linear_sum_assignment

    count = len(people.photos)
    cosines = np.zeros((count, len(faces.embeddings)))
    if len(faces.embeddings):
        cosines[:] = [(photos @ faces.embeddings.T).mean(0) for photos in people.photos]
    distances = np.linalg.norm(people.middles[:, None] - faces.middles.reshape(1, -1, 2), axis=-1)
    assigned = np.full(count, -1)
    who, which = linear_sum_assignment(distances - cosines)
    assigned[who] = which
    seen = assigned >= 0
    # Row p, column q: what the face of person q has to do with person p.
    similar = np.zeros((count, count))
    similar[:, seen] = cosines[:, assigned[seen]]
    motions = np.full((count, 2), -1)
    motions[seen] = faces.motions[assigned[seen]]
    shown = people.motions[:, None] == motions[None]
    own = similar.diagonal()
    others = ~np.eye(count, dtype=bool)
    leaks = np.where(seen, np.where(others, similar, 0.0).sum(0) / (count - 1), 1.0)
    right = shown[~others]
    return PictureScore(
        multi_id_similarity=float(own.mean()),
        multi_id_min=float(own.min()),
        multi_expression_accuracy=float(right[:, 0].mean()),
        multi_pose_accuracy=float(right[:, 1].mean()),
        binding=float(right.mean() - shown[others].mean()),
        count_accuracy=float(len(faces.embeddings) == count),
        leakage=float(leaks.mean()),
        assigned=tuple(assigned.tolist()),
        own=tuple(own.tolist()),
        shows=right,
    )
