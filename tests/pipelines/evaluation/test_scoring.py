"""Metrics from readings of people all of whose embeddings are known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from model.face.face_prompts import EXPRESSIONS, POSE_YAW, POSES
from pipelines.evaluation import ceiling_and_floor
from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.intervals import resample
from pipelines.evaluation.readings import Readings
from pipelines.evaluation.results import Resamples, compare, normalise, summarise
from pipelines.evaluation.scoring import Gallery, JudgedPictures, Scores, score_faces, score_pictures

PEOPLE = 4


@pytest.fixture
def questions(ask: Callable[..., EvaluationSet]) -> EvaluationSet:
    return ask(PEOPLE)


@pytest.fixture
def gallery(questions: EvaluationSet) -> Gallery:
    """Every photo of a person is near that person's axis, with a small deviation in its own direction."""
    rng = np.random.default_rng(0)
    embeddings = {}
    for index, person in enumerate(questions.people):
        mine = {cell.true_photo for cell in questions.cells if cell.person == index and cell.true_photo}
        for cell in questions.multi_cells:
            mine |= {photo for one, photo in zip(cell.people, cell.true_photos, strict=True) if one == index and photo}
        for photo in sorted({person.reference, *person.others, *mine}):
            vector = np.eye(16)[index] + rng.normal(size=16) * 0.08
            embeddings[photo] = vector / np.linalg.norm(vector)
    return Gallery.of(questions, embeddings)


def readings_of(questions: EvaluationSet, numbers: list[int], embeddings: np.ndarray, found: np.ndarray) -> Readings:
    cells = [questions.cells[number] for number in numbers]
    return Readings(
        found=found,
        boxes=np.zeros((len(cells), 4)),
        embeddings=np.where(found[:, None], embeddings, 0.0),
        expression=np.array([EXPRESSIONS.index(cell.expression) for cell in cells]),
        pose=np.array([POSES.index(cell.pose) for cell in cells]),
        yaw=np.array([POSE_YAW[cell.pose] for cell in cells]),
    )


def scores_of(
    questions: EvaluationSet, gallery: Gallery, person_of: Callable[[int], int], found: bool = True
) -> Scores:
    """Score pictures whose embedding is a person's mean, with the asked expression and pose."""
    numbers = [number for number, cell in enumerate(questions.cells) if cell.graded]
    person = np.array([questions.cells[number].person for number in numbers])
    embeddings = np.stack([gallery.people[person_of(index)] for index in person])
    readings = readings_of(questions, numbers, embeddings, np.full(len(numbers), found))
    return Scores(np.array(numbers), person, score_faces(questions, numbers, readings, gallery))


def test_a_perfect_model_gets_every_point(questions: EvaluationSet, gallery: Gallery) -> None:
    columns = scores_of(questions, gallery, lambda person: person).columns
    for metric in ("own_over_other", "expression_accuracy", "pose_accuracy"):
        assert np.nanmean(columns[metric]) == 1.0
    assert np.nanmax(columns["yaw_mae"]) == 0.0
    assert columns["id_similarity"].min() > 0.9
    # Of a person's eleven cells, seven measure expression and five measure pose.
    assert (~np.isnan(columns["expression_accuracy"])).sum() == 7 * PEOPLE
    assert (~np.isnan(columns["pose_accuracy"])).sum() == 5 * PEOPLE


def test_another_person_and_a_missing_face_score_nothing(questions: EvaluationSet, gallery: Gallery) -> None:
    wrong = scores_of(questions, gallery, lambda person: (person + 1) % PEOPLE).columns
    assert wrong["own_over_other"].sum() == 0
    assert wrong["id_similarity"].max() < 0.4
    faceless = scores_of(questions, gallery, lambda person: person, found=False).columns
    for metric in ("own_over_other", "id_similarity", "id_similarity_ref", "copy_paste"):
        assert faceless[metric].tolist() == [0.0] * 11 * PEOPLE
    assert np.nanmax(faceless["expression_accuracy"]) == 0.0
    assert np.nanmin(faceless["yaw_mae"]) == 60.0


def test_real_photos_of_the_person_and_of_others_are_the_ends_of_the_scale(
    questions: EvaluationSet, gallery: Gallery
) -> None:
    ids = questions.photo_ids()
    rows = {name: row for row, name in enumerate(ids)}
    count = len(ids)
    real = Readings(
        found=np.ones(count, bool),
        boxes=np.zeros((count, 4)),
        embeddings=np.stack([gallery.embeddings[name] for name in ids]),
        expression=np.zeros(count, int),
        pose=np.zeros(count, int),
        yaw=np.zeros(count),
    )
    scores = {
        "model": scores_of(questions, gallery, lambda person: person),
        "without_gate": scores_of(questions, gallery, lambda person: (person + 1) % PEOPLE),
        "ceiling": ceiling_and_floor.ceiling(questions, real, rows, gallery),
        "floor": ceiling_and_floor.floor(questions, gallery),
    }
    for name in ("text_only", "without_imr", "true_tokens"):
        scores[name] = scores["without_gate"]
    resamples = Resamples(resample(PEOPLE, 200, 0), {})
    table = summarise(scores, {}, resamples)
    # A photo is never compared with itself: the ceiling stays below one.
    assert 0.7 < table["ceiling"]["id_similarity"].value < 0.99
    assert abs(table["floor"]["id_similarity"].value) < 0.2
    s = normalise(scores, {}, resamples, {})
    # The mean of a person's photos is a little nearer to each than another photo is.
    assert 1.0 < s["model"]["id_similarity"].value < 1.3
    assert abs(s["without_gate"]["id_similarity"].value) < 0.15
    gap = compare(scores, {}, resamples)["model_minus_without_gate"]
    assert gap["own_over_other"].value == 1.0
    assert gap["id_similarity"].low > 0.5
    assert gap["expression_accuracy"].value == 0.0


def test_scores_do_not_depend_on_how_many_pictures_are_scored_at_once(
    questions: EvaluationSet, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, rng = list(range(len(questions.cells))), np.random.default_rng(1)
    vectors = rng.normal(size=(3, len(numbers), 16))
    features, embeddings, prompts = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    read = readings_of(questions, numbers, embeddings, rng.random(len(numbers)) > 0.2)
    judged = JudgedPictures(read, features, rng.random(len(numbers)), {})
    texts = SimpleNamespace(own=prompts, choices=[[(prompts[:3], 1)]] * len(numbers))
    pictures = dict(zip(rng.permutation(numbers).tolist(), numbers, strict=True))
    whole = score_pictures(questions, pictures, judged, gallery, texts)
    monkeypatch.setattr("pipelines.evaluation.scoring._AT_ONCE", 5)
    parts = score_pictures(questions, pictures, judged, gallery, texts)
    assert parts.cells.tolist() == whole.cells.tolist() == list(pictures)
    assert list(parts.columns) == list(whole.columns)
    for name, values in whole.columns.items():
        assert parts.columns[name].dtype == values.dtype
        np.testing.assert_allclose(parts.columns[name], values, rtol=1e-9, err_msg=name)
