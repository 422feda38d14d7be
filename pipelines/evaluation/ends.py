"""Ceiling and floor of the metrics, from real photos alone: the same person (ceiling) and other people (floor).

Both are scored on the model's cells, with a real photo of the asked expression and pose in place of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.readings import Readings
from pipelines.evaluation.scoring import Gallery, Scores, score_faces


def graded_with_photo(questions: EvaluationSet) -> list[int]:
    """Return the numbers of the graded cells with a real photo of the asked expression and pose."""
    return [number for number, cell in enumerate(questions.cells) if cell.graded and cell.true_photo]


def ceiling(questions: EvaluationSet, real: Readings, rows: Mapping[str, int], gallery: Gallery) -> Scores:
    """Score a real photo of the same person in every cell; `rows` gives the row of an image id in `real`."""
    numbers = graded_with_photo(questions)
    photos = [rows[questions.cells[number].true_photo or ""] for number in numbers]
    columns = score_faces(questions, numbers, real.rows(photos), gallery)
    return Scores(np.array(numbers), np.array([questions.cells[number].person for number in numbers]), columns)


def floor(questions: EvaluationSet, gallery: Gallery) -> Scores:
    """Score, in every cell, the real photos of all other people with the asked expression and pose."""
    shown: dict[tuple[str, str], list[tuple[int, np.ndarray]]] = {}
    for number in graded_with_photo(questions):
        cell = questions.cells[number]
        if cell.seed == 0:
            photo = gallery.embeddings[cell.true_photo or ""]
            shown.setdefault((cell.expression, cell.pose), []).append((cell.person, photo))
    numbers, similar, similar_to_reference = [], [], []
    for number, cell in enumerate(questions.cells):
        others = [photo for person, photo in shown.get((cell.expression, cell.pose), []) if person != cell.person]
        if not cell.graded or not others:
            continue
        stacked = np.stack(others)
        numbers.append(number)
        similar.append(float((stacked @ gallery.others(questions, cell.person).T).mean()))
        reference = gallery.embeddings[questions.people[cell.person].reference]
        similar_to_reference.append(float((stacked @ reference).mean()))
    return Scores(
        np.array(numbers, int),
        np.array([questions.cells[number].person for number in numbers], int),
        {"id_similarity": np.array(similar), "id_similarity_ref": np.array(similar_to_reference)},
    )
