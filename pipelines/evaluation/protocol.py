"""The evaluation from drawing every variant to the judges' readings and the metrics."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.sections.evaluation import Evaluate
from pipelines.core.sections.evaluation import Judges as JudgeParams
from pipelines.core.words import counted
from pipelines.evaluation import ceiling_and_floor
from pipelines.evaluation.batches import BatchRunner
from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.groups import group_people, score_groups
from pipelines.evaluation.intervals import Interval, NotMeasurable, bootstrap, resample
from pipelines.evaluation.judge_quality import (
    JudgeQuality,
    choose_photos,
    explain,
    measure_judges,
    refuse_conditioning,
    unfit,
)
from pipelines.evaluation.metrics.distribution import kid
from pipelines.evaluation.metrics.editability import confusion
from pipelines.evaluation.multi_scoring import Columns, ScoredPicture, columns_of, score_several
from pipelines.evaluation.multi_scoring import ceiling as multi_ceiling
from pipelines.evaluation.multi_scoring import floor as multi_floor
from pipelines.evaluation.photos import HeldOut, Photo
from pipelines.evaluation.picture_store import DrawnPicture
from pipelines.evaluation.plan import DRAWN, Plan, join_plans, plan_drawing, plan_shipped
from pipelines.evaluation.readings import FaceReader, Readings
from pipelines.evaluation.results import (
    Measured,
    Resamples,
    Shown,
    compare,
    normalise,
    not_measurable,
    person_means,
    plain,
    summarise,
    withhold,
)
from pipelines.evaluation.sampling import CellRenderer
from pipelines.evaluation.scoring import (
    Gallery,
    JudgedPictures,
    Scores,
    TextFeatures,
    asked_expression,
    asked_pose,
    score_pictures,
)
from pipelines.evaluation.sweeps import plan_sweeps, score_sweeps, summarise_sweeps
from pipelines.evaluation.text_judge import NoTextJudge, TextJudge
from pipelines.evaluation.variants import CEILING, FLOOR, JUDGED_BY, METRICS, MODEL, PEOPLE_OF, WITHOUT_IMR

# Variants whose confusions are shown; those of the ceiling are the judge's errors on real photos.
CONFUSED: tuple[str, ...] = (MODEL, WITHOUT_IMR, CEILING)
_PHOTOS_AT_ONCE = 64


@dataclass(frozen=True)
class Judges:
    """The judges of faces and of text; `key`: a hash of all that their readings depend on."""

    faces: FaceReader
    text: TextJudge | NoTextJudge
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class EvaluationResult:
    """The contents of `metrics.json` and of the report.

    `readings` has one row per picture of `drawn`, which are read from disk when they are asked for;
    `multi[variant][i]` belongs to picture i of several people;
    `confusions[variant]` has the counts of "expression" (7, 8) and "pose" (5, 6).
    """

    questions: EvaluationSet
    photos: Mapping[str, Photo]
    plan: Plan
    drawn: Sequence[DrawnPicture]
    readings: Readings
    scores: Mapping[str, Scores]
    multi: Mapping[str, Mapping[int, ScoredPicture]]
    metrics: Shown
    normalised: Shown
    comparisons: Shown
    confusions: Mapping[str, Mapping[str, np.ndarray]]
    groups: Mapping[str, list[int]]
    group_metrics: Shown
    sweeps: Mapping[tuple[str, float], Mapping[str, Measured]]
    qualities: Mapping[str, JudgeQuality]

    @property
    def unfit(self) -> dict[str, str]:
        """The judges that cannot judge, each with its reason."""
        return unfit(self.qualities)

    def document(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the contents of `metrics.json`, with `settings` as the section of that name."""
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
                variant: {kind: counts.tolist() for kind, counts in found.items() if kind not in self.unfit}
                for variant, found in self.confusions.items()
            },
            "judges": {name: one.plain() for name, one in self.qualities.items()},
            "by_unit": self.by_unit(),
            "settings": dict(settings),
            **({"sweeps": sweeps} if sweeps else {}),
        }

    def by_unit(self, variant: str = MODEL) -> dict[str, list[float | None]]:
        """Return a variant's metrics for each person or picture of several, for paired comparisons with another."""
        scores, people = self.scores[variant], len(self.questions.people)
        columns = {
            **{metric: person_means(scores, metric, people) for metric in METRICS if metric in scores.columns},
            **_columns(self.questions, self.multi[variant]),
        }
        return {
            name: [None if np.isnan(one) else round(float(one), 6) for one in values]
            for name, values in columns.items()
            if not_measurable(name, self.unfit) is None
        }


def run_protocol(
    questions: EvaluationSet,
    held_out: HeldOut,
    renderer: CellRenderer,
    judges: Judges,
    params: Evaluate,
    *,
    shipped: CellRenderer | None = None,
    beyond: Mapping[int, str] | None = None,
    variants: Collection[str] = DRAWN,
    runner: BatchRunner | None = None,
) -> EvaluationResult:
    """Evaluate the renderer's adapter; `held_out` has every photo of the evaluation set.

    `shipped` draws with another adapter on the same base, for comparison. `beyond` has numbers of people that the base
    cannot draw in one picture, with the reason: their metrics are not measurable. Of the variants only `variants` are
    drawn, and the model. `runner` draws and judges with the same judges (default: into a temporary folder).
    """
    photos, runner = held_out.photos, runner or BatchRunner(judges)
    ids = questions.photo_ids()
    real = judges.faces.known([photos[name] for name in ids])
    rows = {name: row for row, name in enumerate(ids)}
    refuse_conditioning(real, [photos[name] for name in ids], params.judges.recogniser.path)
    qualities = measure(judges, photos, renderer, params.judges)
    withheld = unfit(qualities)
    gallery = Gallery.of(questions, {name: real.embeddings[row] for name, row in rows.items()})
    texts = TextFeatures(questions, judges.text)
    tokens = renderer.tokens(questions, photos)
    plan = plan_drawing(questions, tokens, params.variant_cells, variants)
    if fewer := len(plan_drawing(questions, tokens, params.variant_cells).specs) - len(plan.specs):
        names = ", ".join(plan.cells)
        print(
            f"evaluate: draws {counted(len(plan.specs), 'picture')} of {names}, not the {fewer} of other variants",
            file=sys.stderr,
        )
    runner.draw(renderer, plan.specs)
    drawn = runner.pictures(renderer, plan.specs)
    if shipped is not None:
        more = plan_shipped(questions, shipped.tokens(questions, photos), params.variant_cells)
        runner.draw(shipped, more.specs)
        plan, drawn = join_plans(plan, more), drawn.with_more(runner.pictures(shipped, more.specs))
    judged = runner.judged(drawn)
    scores = {
        variant: score_pictures(questions, cells, judged, gallery, texts) for variant, cells in plan.cells.items()
    }
    scores[CEILING] = ceiling_and_floor.ceiling(questions, real, rows, gallery)
    scores[FLOOR] = ceiling_and_floor.floor(questions, gallery)
    multi = {
        variant: score_several(questions, {cell: judged.faces[number] for cell, number in cells.items()}, gallery)
        for variant, cells in plan.multi.items()
    }
    columns = {variant: _columns(questions, found) for variant, found in multi.items()}
    columns |= {CEILING: multi_ceiling(questions, real, rows, gallery), FLOOR: multi_floor(questions, gallery)}
    resamples = Resamples(
        resample(len(questions.people), params.bootstrap, params.seed),
        {
            count: resample(len(questions.multi_of(count)), params.bootstrap, params.seed)
            for count in {len(cell.people) for cell in questions.multi_cells}
        },
    )
    metrics: Shown = {variant: dict(row) for variant, row in summarise(scores, columns, resamples).items()}
    photo_features = _photo_features([photos[name] for name in _asked_photos(questions)], judges.text)
    for variant, cells in plan.cells.items():
        found = metrics[variant] | {"kid": _distance(questions, cells, judged, photo_features, resamples.people)}
        metrics[variant] = {name: found[name] for name in METRICS if name in found}
    undrawn: dict[str, Measured] = {
        name: NotMeasurable(reason)
        for count, reason in (beyond or {}).items()
        for name in PEOPLE_OF
        if PEOPLE_OF[name] == count
    }
    groups = group_people(questions, held_out)
    sweeps: dict[tuple[str, float], dict[str, Interval]] = {}
    if params.sweeps:
        sweep = plan_sweeps(questions, tokens, params.variant_cells)
        swept = runner.run(renderer, sweep.specs)
        sweeps = summarise_sweeps(score_sweeps(questions, sweep, swept, gallery, texts), resamples)
    return EvaluationResult(
        questions=questions,
        photos=photos,
        plan=plan,
        drawn=drawn,
        readings=judged.readings,
        scores=scores,
        multi=multi,
        metrics={
            variant: withhold(row, withheld) | (undrawn if variant in plan.cells else {})
            for variant, row in metrics.items()
        },
        normalised=normalise(scores, columns, resamples, withheld),
        comparisons={pair: withhold(row, withheld) for pair, row in compare(scores, columns, resamples).items()},
        confusions=_confusions(questions, plan, judged.readings, real, rows),
        groups=groups,
        group_metrics={
            name: withhold(row, withheld)
            for name, row in score_groups(groups, scores[MODEL], len(questions.people)).items()
        },
        sweeps={point: withhold(row, withheld) for point, row in sweeps.items()},
        qualities=qualities,
    )


def measure(
    judges: Judges, photos: Mapping[str, Photo], renderer: CellRenderer, params: JudgeParams
) -> dict[str, JudgeQuality]:
    """Return the quality of the judges on real `photos`, softened by the renderer's autoencoder; name the unfit."""
    chosen = choose_photos(photos, params.photos)
    images = [photo.image for photo in chosen]
    softened = renderer.soften(images)
    qualities = measure_judges(judges.faces, judges.text, chosen, softened, params.bounds)
    if unfit(qualities):
        qualities = explain(qualities, measure_judges(judges.faces, judges.text, chosen, images, params.bounds))
    for name, reason in unfit(qualities).items():
        metrics = ", ".join(metric for metric in METRICS if name in JUDGED_BY[metric])
        print(f"evaluate: the judge {name} cannot judge: {reason}; not measurable: {metrics}", file=sys.stderr)
    return qualities


def _photo_features(photos: Sequence[Photo], judge: TextJudge | NoTextJudge) -> np.ndarray:
    """Return the text judge's features (N, d) of photos, of which a few are decoded at a time."""
    parts = [photos[start : start + _PHOTOS_AT_ONCE] for start in range(0, len(photos), _PHOTOS_AT_ONCE)]
    return np.concatenate([judge.pictures([photo.image for photo in part]) for part in parts or [photos]])


def _columns(questions: EvaluationSet, found: Mapping[int, ScoredPicture]) -> Columns:
    return columns_of(questions, {number: one.score for number, one in found.items()})


def _asked_photos(questions: EvaluationSet) -> dict[str, int]:
    """Return the true photos of the graded cells, which KID compares with, and their people."""
    return {photo: questions.cells[number].person for number, photo in ceiling_and_floor.true_photos(questions).items()}


def _distance(
    questions: EvaluationSet, cells: Mapping[int, int], judged: JudgedPictures, real: np.ndarray, weights: np.ndarray
) -> Measured:
    # A picture shared by several cells counts once: copies would reduce the measured variety.
    person = {
        picture: questions.cells[number].person for number, picture in cells.items() if questions.cells[number].graded
    }
    real_person = np.array(list(_asked_photos(questions).values()))
    if len(person) < 2:
        return NotMeasurable(f"{len(person)} picture drawn, a distance needs two")
    drawn, drawn_person = judged.features[list(person)], np.array(list(person.values()))
    return bootstrap(kid(drawn, drawn_person, real, real_person, weights.shape[1]), weights)


def _confusions(
    questions: EvaluationSet, plan: Plan, readings: Readings, real: Readings, rows: Mapping[str, int]
) -> dict[str, dict[str, np.ndarray]]:
    table = {}
    for variant in (one for one in CONFUSED if one == CEILING or one in plan.cells):
        if variant == CEILING:
            photos = ceiling_and_floor.true_photos(questions)
            read, shown = real, {number: rows[photo] for number, photo in photos.items()}
        else:
            cells = plan.cells[variant]
            read, shown = readings, {number: cells[number] for number in cells if questions.cells[number].graded}
        frontal = [number for number in shown if questions.cells[number].asks_expression]
        neutral = [number for number in shown if questions.cells[number].asks_pose]
        faces, turns = ([shown[number] for number in numbers] for numbers in (frontal, neutral))
        expression, pose = ([questions.cells[number] for number in numbers] for numbers in (frontal, neutral))
        table[variant] = {
            "expression": confusion(
                asked_expression(expression), read.expression[faces], read.found[faces], len(EXPRESSIONS)
            ),
            "pose": confusion(asked_pose(pose), read.pose[turns], read.found[turns], len(POSES)),
        }
    return table
