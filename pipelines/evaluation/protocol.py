"""The protocol from beginning to end: draw every variant, let the judges read, compute every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.sections.evaluation import Evaluate
from pipelines.evaluation import ends
from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.groups import group_people, score_groups
from pipelines.evaluation.intervals import Interval, bootstrap, resample
from pipelines.evaluation.metrics.distribution import kid
from pipelines.evaluation.metrics.editability import confusion
from pipelines.evaluation.metrics.multi_person import PictureScore, score_picture
from pipelines.evaluation.photos import HeldOut, Photo
from pipelines.evaluation.plan import Plan, join_plans, plan_drawing, plan_shipped
from pipelines.evaluation.readings import FaceReader, Readings
from pipelines.evaluation.results import Resamples, Table, compare, normalise, person_means, plain, summarise
from pipelines.evaluation.sampling import CellRenderer, DrawnPicture
from pipelines.evaluation.scoring import (
    Gallery,
    Scores,
    Seen,
    TextFeatures,
    asked_expression,
    asked_pose,
    score_pictures,
)
from pipelines.evaluation.sweeps import plan_sweeps, score_sweeps, summarise_sweeps
from pipelines.evaluation.text_judge import TextJudge
from pipelines.evaluation.variants import CEILING, FLOOR, METRICS, MODEL, PAIR_METRICS, WITHOUT_IMR

# Variants whose confusions are shown: the model, what the IMR adds, and how the judge reads real photos.
CONFUSED: tuple[str, ...] = (MODEL, WITHOUT_IMR, CEILING)


@dataclass(frozen=True)
class Judges:
    """All the judges."""

    faces: FaceReader
    text: TextJudge


@dataclass(frozen=True)
class PairSeen:
    """A drawn picture of two people: boxes (F, 4) of its faces in [0, 1] and its scores."""

    boxes: np.ndarray
    score: PictureScore


@dataclass(frozen=True)
class Outcome:
    """All that an evaluation found out; what `metrics.json` and the report are written from.

    `readings` belongs to `drawn`, picture by picture; `pairs[variant][i]` to pair i; `confusions[variant]` holds
    the counts for "expression" (7, 8) and "pose" (5, 6).
    """

    questions: EvaluationSet
    photos: Mapping[str, Photo]
    plan: Plan
    drawn: Sequence[DrawnPicture]
    readings: Readings
    scores: Mapping[str, Scores]
    pairs: Mapping[str, Sequence[PairSeen]]
    metrics: Table
    normalised: Table
    comparisons: Table
    confusions: Mapping[str, Mapping[str, np.ndarray]]
    groups: Mapping[str, list[int]]
    group_metrics: Table
    sweeps: Mapping[tuple[str, float], Mapping[str, Interval]]

    def document(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `metrics.json` holds."""
        sweeps: dict[str, list[dict[str, Any]]] = {}
        for (name, value), row in self.sweeps.items():
            sweeps.setdefault(name, []).append({"at": value, **{key: one.plain() for key, one in row.items()}})
        return {
            "evaluation_set": self.questions.hash,
            **plain(self.metrics),
            "normalised": plain(self.normalised),
            "comparisons": plain(self.comparisons),
            "groups": {
                name: {"people": len(self.groups[name]), **row} for name, row in plain(self.group_metrics).items()
            },
            "confusion": {
                variant: {kind: counts.tolist() for kind, counts in found.items()}
                for variant, found in self.confusions.items()
            },
            "by_unit": self._by_unit(),
            "settings": dict(settings),
            **({"sweeps": sweeps} if sweeps else {}),
        }

    def _by_unit(self) -> dict[str, list[float | None]]:
        """Return the model's metrics person by person (pair by pair), so that another model's compare in pairs."""
        scores, people = self.scores[MODEL], len(self.questions.people)
        columns = {
            **{metric: person_means(scores, metric, people) for metric in METRICS if metric in scores.columns},
            **_pair_columns(self.pairs[MODEL]),
        }
        return {
            name: [None if np.isnan(one) else round(float(one), 6) for one in values]
            for name, values in columns.items()
        }


def run_protocol(
    questions: EvaluationSet,
    held_out: HeldOut,
    renderer: CellRenderer,
    judges: Judges,
    params: Evaluate,
    *,
    shipped: CellRenderer | None = None,
) -> Outcome:
    """Evaluate the renderer's adapter; `held_out` has every photo that the questions name.

    `shipped` draws with another adapter on the same base, for comparison.
    """
    photos = held_out.photos
    ids = questions.photo_ids()
    real = judges.faces.known([photos[name].image for name in ids], [photos[name].keypoints for name in ids])
    rows = {name: row for row, name in enumerate(ids)}
    gallery = Gallery.of(questions, {name: real.embeddings[row] for name, row in rows.items()})
    texts = TextFeatures(questions, judges.text)
    tokens = renderer.tokens(questions, photos)
    plan = plan_drawing(questions, tokens, params.variant_cells)
    drawn = renderer.draw(plan.orders)
    if shipped is not None:
        more = plan_shipped(questions, shipped.tokens(questions, photos), params.variant_cells)
        plan, drawn = join_plans(plan, more), drawn + shipped.draw(more.orders)
    seen = _judge(drawn, judges)

    scores = {
        variant: score_pictures(questions, list(cells), seen.rows(list(cells.values())), gallery, texts)
        for variant, cells in plan.cells.items()
    }
    scores[CEILING] = ends.ceiling(questions, real, rows, gallery)
    scores[FLOOR] = ends.floor(questions, gallery)
    pairs = {
        variant: _judge_pairs(questions, [drawn[number].image for number in cells.values()], judges.faces, gallery)
        for variant, cells in plan.pairs.items()
    }
    columns = {variant: _pair_columns(found) for variant, found in pairs.items()}
    resamples = Resamples(
        resample(len(questions.people), params.bootstrap, params.seed),
        resample(len(questions.pairs), params.bootstrap, params.seed),
    )
    metrics = summarise(scores, columns, resamples)
    photo_features = judges.text.pictures([photos[name].image for name in _asked_photos(questions)])
    for variant, cells in plan.cells.items():
        found = metrics[variant] | {"kid": _distance(questions, cells, seen, photo_features, resamples.people)}
        metrics[variant] = {name: found[name] for name in METRICS if name in found}
    groups = group_people(questions, held_out)
    sweeps = {}
    if params.sweeps:
        sweep = plan_sweeps(questions, tokens, params.variant_cells)
        swept = _judge(renderer.draw(sweep.orders), judges)
        sweeps = summarise_sweeps(score_sweeps(questions, sweep, swept, gallery, texts), resamples)
    return Outcome(
        questions=questions,
        photos=photos,
        plan=plan,
        drawn=drawn,
        readings=seen.readings,
        scores=scores,
        pairs=pairs,
        metrics=metrics,
        normalised=normalise(scores, columns, resamples),
        comparisons=compare(scores, columns, resamples),
        confusions=_confusions(questions, plan, seen.readings, real, rows),
        groups=groups,
        group_metrics=score_groups(groups, scores[MODEL], len(questions.people)),
        sweeps=sweeps,
    )


def _judge(drawn: Sequence[DrawnPicture], judges: Judges) -> Seen:
    images = [one.image for one in drawn]
    return Seen(judges.faces.single(images), judges.text.pictures(images), [one.gate for one in drawn])


def _pair_columns(found: Sequence[PairSeen]) -> dict[str, np.ndarray]:
    return {name: np.array([getattr(one.score, name) for one in found]) for name in PAIR_METRICS}


def _judge_pairs(
    questions: EvaluationSet, images: Sequence[np.ndarray], face_reader: FaceReader, gallery: Gallery
) -> list[PairSeen]:
    seen = []
    for pair, (embeddings, boxes) in zip(questions.pairs, face_reader.all_faces(images), strict=True):
        known = [gallery.others(questions, person) for person in pair.people]
        seen.append(PairSeen(boxes, score_picture(embeddings, known)))
    return seen


def _asked_photos(questions: EvaluationSet) -> dict[str, int]:
    """Return the real photos in the mix of looks that is asked, with their people."""
    return {
        questions.cells[number].true_photo or "": questions.cells[number].person
        for number in ends.graded_with_photo(questions)
    }


def _distance(
    questions: EvaluationSet, cells: Mapping[int, int], seen: Seen, real: np.ndarray, weights: np.ndarray
) -> Interval:
    # A picture that answers several cells counts once: with its own copies it would look like less variety.
    person = {
        picture: questions.cells[number].person for number, picture in cells.items() if questions.cells[number].graded
    }
    people = weights.shape[1]
    statistic = kid(
        seen.features[list(person)],
        np.array(list(person.values())),
        real,
        np.array(list(_asked_photos(questions).values())),
        people,
    )
    return bootstrap(statistic, weights)


def _confusions(
    questions: EvaluationSet, plan: Plan, readings: Readings, real: Readings, rows: Mapping[str, int]
) -> dict[str, dict[str, np.ndarray]]:
    table = {}
    for variant in CONFUSED:
        if variant == CEILING:
            numbers = ends.graded_with_photo(questions)
            shown = real.rows([rows[questions.cells[number].true_photo or ""] for number in numbers])
        else:
            numbers = [number for number in plan.cells[variant] if questions.cells[number].graded]
            shown = readings.rows([plan.cells[variant][number] for number in numbers])
        cells = [questions.cells[number] for number in numbers]
        faces = [row for row, cell in enumerate(cells) if cell.asks_expression]
        turns = [row for row, cell in enumerate(cells) if cell.asks_pose]
        one, other = shown.rows(faces), shown.rows(turns)
        table[variant] = {
            "expression": confusion(asked_expression(cells)[faces], one.expression, one.found, len(EXPRESSIONS)),
            "pose": confusion(asked_pose(cells)[turns], other.pose, other.found, len(POSES)),
        }
    return table
