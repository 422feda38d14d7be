"""Ceiling and floor of the metrics, from real photos alone: the same person (ceiling) and other people (floor).

Both are scored on the model's cells, with a real photo of the asked expression and pose in place of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.readings import Readings
from pipelines.evaluation.scoring import Gallery, Scores, score_faces


def true_photos(questions: EvaluationSet) -> dict[int, str]:
    """Return the true photo (image id) of every graded cell that has one, by the cell's number."""
    return {number: cell.true_photo for number, cell in enumerate(questions.cells) if cell.graded and cell.true_photo}


def ceiling(questions: EvaluationSet, real: Readings, rows: Mapping[str, int], gallery: Gallery) -> Scores:
    """Score the true photo of every graded cell that has one; `rows` maps an image id to its row in `real`."""
    photos = true_photos(questions)
    readings = real.rows([rows[photo] for photo in photos.values()])
    return Scores.of(questions, list(photos), score_faces(questions, list(photos), readings, gallery))


def floor(questions: EvaluationSet, gallery: Gallery) -> Scores:
    """Score in every graded cell the real photos of other people that show its expression and pose."""
    shown: dict[tuple[str, str], list[tuple[int, np.ndarray]]] = {}
    for number, photo in true_photos(questions).items():
        cell = questions.cells[number]
        if cell.seed == 0:
            shown.setdefault((cell.expression, cell.pose), []).append((cell.person, gallery.embeddings[photo]))
    numbers: list[int] = []
    similar, similar_to_reference = [], []
    for number, cell in enumerate(questions.cells):
        others = [one for person, one in shown.get((cell.expression, cell.pose), []) if person != cell.person]
        if not cell.graded or not others:
            continue
        stacked = np.stack(others)
        numbers.append(number)
        similar.append(float((stacked @ gallery.others(questions, cell.person).T).mean()))
        reference = gallery.embeddings[questions.people[cell.person].reference]
        similar_to_reference.append(float((stacked @ reference).mean()))
    columns = {"id_similarity": np.array(similar), "id_similarity_ref": np.array(similar_to_reference)}
    return Scores.of(questions, numbers, columns)
