"""From the judges' readings to scores: one row per cell, one column per metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.evaluation.evaluation_set import Cell, EvaluationSet
from pipelines.evaluation.metrics.distribution import diversity
from pipelines.evaluation.metrics.editability import correct, yaw_error
from pipelines.evaluation.metrics.identity import centroid, copy_paste, own_over_other, similarity
from pipelines.evaluation.metrics.text import clip_t, prompt_accuracy
from pipelines.evaluation.readings import Readings
from pipelines.evaluation.text_judge import NoTextJudge, TextJudge

# Pictures that are scored at once.
_AT_ONCE = 1024


@dataclass(frozen=True)
class Scores:
    """Scores of one variant: `cells` (N,) and `person` (N,) indices, `columns` metric → (N,), NaN without a value."""

    cells: np.ndarray
    person: np.ndarray
    columns: Mapping[str, np.ndarray]

    @staticmethod
    def of(questions: EvaluationSet, numbers: Sequence[int], columns: Mapping[str, np.ndarray]) -> Scores:
        """Return the scores of the cells `numbers`, one row of `columns` each."""
        return Scores(np.array(numbers, int), np.array([questions.cells[n].person for n in numbers], int), columns)


@dataclass(frozen=True)
class JudgedPictures:
    """What the judges read of N drawn pictures, without pixels.

    `readings` of the largest face of each; `features` (N, d) of the text judge; `gate_in_face` (N,), the share of the
    gate's mass inside the face, NaN where there is no gate map. Of pictures of several people only `faces` are read:
    all faces of each, by the picture's row.
    """

    readings: Readings
    features: np.ndarray
    gate_in_face: np.ndarray
    faces: Mapping[int, Readings]

    def rows(self, index: Sequence[int]) -> JudgedPictures:
        """Return the pictures `index`, in that order."""
        chosen = list(index)
        faces = {row: self.faces[old] for row, old in enumerate(chosen) if old in self.faces}
        return JudgedPictures(self.readings.rows(chosen), self.features[chosen], self.gate_in_face[chosen], faces)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all of it as named arrays, from which `of` makes it again."""
        named = {f"face_{row}": one for row, one in self.faces.items()} | {"readings": self.readings}
        found = {f"{name}.{key}": values for name, one in named.items() for key, values in vars(one).items()}
        return found | {"features": self.features, "gate_in_face": self.gate_in_face}

    @staticmethod
    def of(arrays: Mapping[str, np.ndarray]) -> JudgedPictures:
        """Return what `arrays` holds, as `arrays()` named it."""

        def readings(name: str) -> Readings:
            return Readings(**{field.name: arrays[f"{name}.{field.name}"] for field in fields(Readings)})

        several = {int(key.split(".")[0].removeprefix("face_")) for key in arrays if key.startswith("face_")}
        faces = {row: readings(f"face_{row}") for row in sorted(several)}
        return JudgedPictures(readings("readings"), arrays["features"], arrays["gate_in_face"], faces)


@dataclass(frozen=True)
class Gallery:
    """The recogniser judge's embeddings of real photos, by image id, and one unit vector per person (P, d)."""

    embeddings: Mapping[str, np.ndarray]
    people: np.ndarray

    @staticmethod
    def of(questions: EvaluationSet, embeddings: Mapping[str, np.ndarray]) -> Gallery:
        """Build the gallery; a person's vector is the unit-norm mean of the photos for comparison."""
        people = [centroid(np.stack([embeddings[photo] for photo in person.others])) for person in questions.people]
        return Gallery(embeddings, np.stack(people))

    def others(self, questions: EvaluationSet, person: int) -> np.ndarray:
        """Return the embeddings (K, d) of the person's photos for comparison."""
        return np.stack([self.embeddings[photo] for photo in questions.people[person].others])


class TextFeatures:
    """Features of every prompt and its alternatives, by prompt index; each text is encoded once."""

    def __init__(self, questions: EvaluationSet, judge: TextJudge | NoTextJudge) -> None:
        prompts = {number: questions.prompts.single[number] for number in sorted({c.prompt for c in questions.cells})}
        slots = {number: [one.alternatives(slot) for slot, _ in one.asked] for number, one in prompts.items()}
        texts: dict[str, int] = {}
        for number, prompt in prompts.items():
            for text in [prompt.text, *(text for alternatives, _ in slots[number] for text in alternatives)]:
                texts.setdefault(text, len(texts))
        features = judge.texts(list(texts))
        self.own = {number: features[texts[prompt.text]] for number, prompt in prompts.items()}
        self.choices = {
            number: [(features[[texts[text] for text in alternatives]], asked) for alternatives, asked in choices]
            for number, choices in slots.items()
        }


def score_faces(
    questions: EvaluationSet, numbers: Sequence[int], readings: Readings, gallery: Gallery
) -> dict[str, np.ndarray]:
    """Return the columns that depend on faces alone: identity, expression and pose. Row i is cell `numbers[i]`."""
    cells = [questions.cells[number] for number in numbers]
    person = np.array([cell.person for cell in cells], int)
    others = [gallery.others(questions, cell.person) for cell in cells]
    references = np.stack([gallery.embeddings[questions.people[cell.person].reference] for cell in cells])
    expression, pose = asked_expression(cells), asked_pose(cells)
    frontal, neutral = np.array([(cell.asks_expression, cell.asks_pose) for cell in cells]).T
    found = readings.found
    return {
        "id_similarity": similarity(readings.embeddings, found, others),
        "id_similarity_ref": similarity(readings.embeddings, found, [reference[None] for reference in references]),
        "copy_paste": copy_paste(readings.embeddings, found, references, others),
        "expression_accuracy": correct(expression, readings.expression, found, frontal),
        "pose_accuracy": correct(pose, readings.pose, found, neutral),
        "yaw_mae": yaw_error(pose, readings.yaw, found, neutral),
        "own_over_other": own_over_other(readings.embeddings, found, person, gallery.people),
    }


def score_pictures(
    questions: EvaluationSet, pictures: Mapping[int, int], judged: JudgedPictures, gallery: Gallery, texts: TextFeatures
) -> Scores:
    """Score the drawn pictures of one variant: `pictures` has the row of `judged` for each cell's number.

    Cells that are not graded have values for diversity only. The pictures of some people at once are in memory.
    """
    numbers, columns = list(pictures), dict[str, np.ndarray]()
    for block in _blocks(questions, numbers):
        mine = [numbers[place] for place in block]
        found = _score_block(questions, mine, judged.rows([pictures[number] for number in mine]), gallery, texts)
        for name, values in found.items():
            columns.setdefault(name, np.full(len(numbers), np.nan, values.dtype))[block] = values
    return Scores.of(questions, numbers, {name: one for name, one in columns.items() if not np.isnan(one).all()})


def _blocks(questions: EvaluationSet, numbers: Sequence[int]) -> Iterator[list[int]]:
    """Yield the places in `numbers`, about _AT_ONCE at a time, all of a person together."""
    people: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        people.setdefault(questions.cells[number].person, []).append(place)
    block: list[int] = []
    for places in people.values():
        if block and len(block) + len(places) > _AT_ONCE:
            yield sorted(block)
            block = []
        block += places
    if block:
        yield sorted(block)


def _score_block(
    questions: EvaluationSet, numbers: Sequence[int], judged: JudgedPictures, gallery: Gallery, texts: TextFeatures
) -> dict[str, np.ndarray]:
    """Return every column of the cells `numbers`; `judged` is in their order."""
    readings, features = judged.readings, judged.features
    cells = [questions.cells[number] for number in numbers]
    columns = score_faces(questions, numbers, readings, gallery)
    columns["clip_t"] = clip_t(features, np.stack([texts.own[cell.prompt] for cell in cells]))
    columns["prompt_accuracy"] = prompt_accuracy(features, [texts.choices[cell.prompt] for cell in cells])
    columns["face_rate"] = readings.found.astype(float)
    columns["gate_in_face"] = judged.gate_in_face
    graded = np.array([cell.graded for cell in cells])
    columns = {name: np.where(graded, column, np.nan) for name, column in columns.items()}
    groups: dict[tuple[object, ...], int] = {}
    # The pictures of a group differ only in their noise.
    same = [groups.setdefault((cell.person, cell.expression, cell.pose, cell.prompt), len(groups)) for cell in cells]
    columns["diversity"] = diversity(features, np.array(same, int))
    return columns


def asked_expression(cells: Sequence[Cell]) -> np.ndarray:
    """Return the indices (N,) of the asked expressions."""
    return np.array([EXPRESSIONS.index(cell.expression) for cell in cells], int)


def asked_pose(cells: Sequence[Cell]) -> np.ndarray:
    """Return the indices (N,) of the asked poses."""
    return np.array([POSES.index(cell.pose) for cell in cells], int)
