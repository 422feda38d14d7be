"""Several references of one person: which one is the best, and whether they show one person at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.face.face import Combine, Face, ReferenceSet
from pipelines.core.errors import UserError
from pipelines.data.faces.analysis import to_face
from pipelines.data.faces.calibration import Recogniser
from pipelines.data.faces.face_inputs import FaceInputs
from pipelines.data.faces.record import FaceRecord


def best_first(records: Sequence[FaceRecord]) -> list[FaceRecord]:
    """Return the analysed references of a person with the best one first, the others in their order.

    Expression and pose come from it. It is the most frontal one: it shows all landmarks, from which the IMR takes the
    shape of the face.
    """
    best = min(range(len(records)), key=lambda row: _turned(records[row]))
    return [records[best], *records[:best], *records[best + 1 :]]


def _turned(record: FaceRecord) -> float:
    """Return by how many degrees a face is turned from the camera, sideways and up or down together."""
    return float(np.hypot(record.yaw or 0.0, record.pitch or 0.0))


def person_of(
    records: Sequence[FaceRecord], inputs: FaceInputs, combine: Combine, *, edited: bool = True
) -> Face | ReferenceSet:
    """Return the model's input for a person with one or several analysed references; `edited` as in FaceInputs."""
    several = len(records) > 1
    faces = [to_face(record, inputs, edited=edited or several) for record in best_first(records)]
    return ReferenceSet(tuple(faces), combine) if several else faces[0]


def doubt(records: Sequence[FaceRecord], names: Sequence[str], recogniser: Recogniser) -> str:
    """Return why the references of a person may be of different people, with their similarity; "" for no doubt.

    They are of one person where a chain of similar ones links them all: two are similar from the cosine on that all
    but one in fifty pairs of one person reach; where that is not measured, from the recogniser's threshold on.
    """
    try:
        known = recogniser.thresholds()
    except UserError as error:
        return f"{', '.join(names)}: not checked whether they show one person: {error}"
    bound = known.doubtful or known.similarity
    embeddings = np.stack([record.embedding for record in records if record.embedding is not None])
    linked, similarity = linked_with_first(embeddings, bound)
    if linked.all():
        return ""
    here, there = (", ".join(np.array(names, object)[rows]) for rows in (linked, ~linked))
    return (
        f"{here} and {there} may show different people: similarity {similarity:.2f}, below {bound:g}, which photos of "
        f"one person reach to {recogniser.pack}; if so, the picture shows a mixture of them"
    )


def linked_with_first(embeddings: np.ndarray, bound: float) -> tuple[np.ndarray, float]:
    """Return which unit vectors (R, d) a chain of cosines of at least `bound` links with the first, (R,) bool.

    Also the greatest cosine between one that is linked and one that is not, 1 where all are.
    """
    cosines = embeddings @ embeddings.T
    linked = np.arange(len(embeddings)) == 0
    for _ in range(len(embeddings)):
        linked = linked | (cosines[linked] >= bound).any(0)
    return linked, 1.0 if linked.all() else float(cosines[np.ix_(linked, ~linked)].max())
