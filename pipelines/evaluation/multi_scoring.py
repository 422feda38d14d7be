"""Score pictures of several people, drawn ones and those that real photos make up: the two ends of the scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.metrics.multi_person import AskedPeople, FoundFaces, PictureScore, score_picture
from pipelines.evaluation.readings import Readings
from pipelines.evaluation.scoring import Gallery
from pipelines.evaluation.variants import MULTI_MEANINGS, multi_metric

Columns = dict[str, np.ndarray]
"""Metric → values (N,) of all pictures of so many people, NaN for those that a variant does not have."""
# What other people's photos can say: they show any expression and pose, and as many faces as people.
_OF_FLOOR = ("multi_id_similarity", "multi_id_min", "leakage")


@dataclass(frozen=True)
class ScoredPicture:
    """A drawn picture of several people: what was read of its faces, and its scores."""

    faces: Readings
    score: PictureScore


def score_several(
    questions: EvaluationSet, faces: Mapping[int, Readings], gallery: Gallery
) -> dict[int, ScoredPicture]:
    """Score pictures by all `faces` that were read of each, by the numbers of what was asked."""
    return {
        number: ScoredPicture(read, score_picture(_found(read), _asked(questions, number, gallery)))
        for number, read in faces.items()
    }


def columns_of(questions: EvaluationSet, scores: Mapping[int, PictureScore]) -> Columns:
    """Return the metrics of the pictures in `scores`, by their numbers; those without any value are left out."""
    columns: Columns = {}
    for people in sorted({len(cell.people) for cell in questions.multi_cells}):
        known = [scores.get(number) for number in questions.multi_of(people)]
        for metric in MULTI_MEANINGS if any(known) else ():
            values = [np.nan if score is None else getattr(score, metric) for score in known]
            columns[multi_metric(metric, people)] = np.array(values)
    return columns


def ceiling(questions: EvaluationSet, real: Readings, rows: Mapping[str, int], gallery: Gallery) -> Columns:
    """Score each person's true photo in the person's box; `rows` maps an image id to its row in `real`.

    Only pictures for which everybody has one; they have as many faces as people by construction.
    """
    scores = {}
    for number, cell in enumerate(questions.multi_cells):
        if cell.photos is not None:
            asked = _asked(questions, number, gallery)
            shown = real.rows([rows[photo] for photo in cell.photos])
            faces = FoundFaces(shown.embeddings, asked.middles, np.stack([shown.expression, shown.pose], 1))
            scores[number] = score_picture(faces, asked)
    return _without(columns_of(questions, scores), {"count_accuracy"})


def floor(questions: EvaluationSet, gallery: Gallery) -> Columns:
    """Score photos of people who are not in the picture: the mean over all turns of them through the boxes.

    Pictures for which there are fewer others than people are left out.
    """
    columns: Columns = {}
    for people in sorted({len(cell.people) for cell in questions.multi_cells}):
        numbers = questions.multi_of(people)
        means = np.array([_floor_of(questions, number, gallery) for number in numbers])
        if not np.isnan(means).all():
            columns |= {multi_metric(name, people): means[:, column] for column, name in enumerate(_OF_FLOOR)}
    return columns


def _floor_of(questions: EvaluationSet, number: int, gallery: Gallery) -> Sequence[float]:
    asked, cell = _asked(questions, number, gallery), questions.multi_cells[number]
    count = len(cell.people)
    strangers = [person for person in range(len(questions.people)) if person not in cell.people]
    if len(strangers) < count:
        return [np.nan] * len(_OF_FLOOR)
    photos = [gallery.embeddings[questions.people[person].others[0]] for person in strangers]
    turns = [[photos[(turn + place) % len(photos)] for place in range(count)] for turn in range(len(photos))]
    scores = [score_picture(FoundFaces(np.stack(one), asked.middles, asked.motions), asked) for one in turns]
    return [float(np.mean([getattr(score, name) for score in scores])) for name in _OF_FLOOR]


def _asked(questions: EvaluationSet, number: int, gallery: Gallery) -> AskedPeople:
    cell = questions.multi_cells[number]
    return AskedPeople(
        photos=[gallery.others(questions, person) for person in cell.people],
        middles=np.array([((x0 + x1) / 2, (y0 + y1) / 2) for y0, x0, y1, x1 in cell.boxes]),
        motions=cell.motions,
    )


def _found(faces: Readings) -> FoundFaces:
    middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    return FoundFaces(faces.embeddings, middles, np.stack([faces.expression, faces.pose], 1))


def _without(columns: Columns, left_out: Iterable[str]) -> Columns:
    names = {multi_metric(name, people) for name in left_out for people in (2, 3, 4)}
    return {name: values for name, values in columns.items() if name not in names}
