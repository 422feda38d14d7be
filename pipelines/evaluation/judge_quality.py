"""Measure the judges on real photos before they judge: the metrics of a judge below its bound are not measurable.

The photos are those of the evaluation's people, encoded and decoded by the base's autoencoder: every drawn picture has
passed the decoder, which removes detail that some networks rely on. They are read as drawn pictures are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.errors import UserError
from pipelines.core.sections.evaluation import JudgeBounds
from pipelines.core.words import counted
from pipelines.data.faces.protocols import Detection
from pipelines.evaluation.photos import Photo
from pipelines.evaluation.readings import FaceReader, Readings
from pipelines.evaluation.text_judge import NoTextJudge, TextJudge
from pipelines.evaluation.variants import DETECTOR, EXPRESSION, POSE, RECOGNISER, TEXT

# Rates of false accepts at which true ones are counted, where at least so many pairs of different people are falsely
# accepted.
_FALSE_ACCEPTS = (0.01, 0.001)
_FEWEST_FALSE = 10
# Distance of key points up to which they are of one face, as a share of the distance of its eyes.
_NEAR = 0.5
# Two networks that were trained apart agree by chance, about 0; one network in two precisions by 0.9.
_SAME_NETWORK = 0.5

Figures = dict[str, float | int]


@dataclass(frozen=True)
class JudgeQuality:
    """What a judge reached on real photos: `figures` by name; `reason` says why it cannot judge, None where it can."""

    figures: Mapping[str, float | int] = field(default_factory=dict)
    reason: str | None = None

    def plain(self) -> dict[str, Any]:
        """Return the quality as JSON values."""
        rounded = {name: round(one, 6) if isinstance(one, float) else one for name, one in self.figures.items()}
        return {**rounded, "reason": self.reason}


def choose_photos(photos: Mapping[str, Photo], count: int) -> list[Photo]:
    """Return at most `count` photos: one of every person in turn, each person's in the order of the ids."""
    of_person: dict[str, list[Photo]] = {}
    for _, photo in sorted(photos.items()):
        of_person.setdefault(photo.record.identity, []).append(photo)
    longest = max(map(len, of_person.values()), default=0)
    return [mine[turn] for turn in range(longest) for mine in of_person.values() if turn < len(mine)][:count]


def measure_judges(
    faces: FaceReader,
    text: TextJudge | NoTextJudge,
    photos: Sequence[Photo],
    softened: Sequence[np.ndarray],
    bounds: JudgeBounds,
) -> dict[str, JudgeQuality]:
    """Return the quality of every judge on `softened`, pictures (H, W, 3) uint8 RGB of the `photos`, in their order."""
    found = faces.largest(softened)
    located = [_is_face_of(*each) for each in zip(found, softened, photos, strict=True)]
    rows = [row for row, known in enumerate(located) if known]
    seen = [photos[row] for row in rows]
    shown = faces.read([softened[row] for row in rows], [found[row] for row in rows])
    return {
        DETECTOR: _detector(located, bounds),
        RECOGNISER: _recogniser(shown.embeddings, [photo.record.identity for photo in seen], bounds),
        EXPRESSION: _unnamed("expression") if faces.expression is None else _expression(shown, seen, bounds),
        POSE: _unnamed("yaw") if faces.pose is None else _pose(shown, seen, bounds),
        TEXT: _unnamed("clip")
        if isinstance(text, NoTextJudge)
        else _text(text, [photo.record.prompt for photo in photos], softened, bounds),
    }


def explain(qualities: Mapping[str, JudgeQuality], as_they_are: Mapping[str, JudgeQuality]) -> dict[str, JudgeQuality]:
    """Return `qualities` on softened photos; a judge that can judge photos `as_they_are` has that in its reason.

    Then it is the autoencoder, or the resolution, that removes what this judge reads.
    """
    return {
        name: replace(one, reason=f"{one.reason}; it can judge the photos before the autoencoder")
        if one.reason is not None and as_they_are[name].reason is None
        else one
        for name, one in qualities.items()
    }


def unfit(qualities: Mapping[str, JudgeQuality]) -> dict[str, str]:
    """Return the judges that cannot judge, each with its reason."""
    return {name: one.reason for name, one in qualities.items() if one.reason is not None}


def refuse_conditioning(readings: Readings, photos: Sequence[Photo], file: object) -> None:
    """Raise UserError where the judge's `readings` of the `photos` are the embeddings that condition the model.

    This recognises a network in another file format or precision, by what it computes.
    """
    stored = np.stack([photo.embedding for photo in photos])
    if readings.embeddings.shape != stored.shape:
        return
    agreement = float((readings.embeddings * stored).sum(1).mean())
    if agreement > _SAME_NETWORK:
        raise UserError(
            f"evaluate.judges.recogniser = {file}: its vectors are those of the recogniser that conditions the model "
            f"(mean cosine {agreement:.2f}), which cannot judge; name a network of another training"
        )


def _unnamed(key: str) -> JudgeQuality:
    return JudgeQuality(reason=f"evaluate.judges.{key} names no network")


def _is_face_of(face: Detection | None, softened: np.ndarray, photo: Photo) -> bool:
    """Whether a face found in the `softened` picture is that of the photo: key points nearer than `_NEAR`."""
    if face is None:
        return False
    known = photo.keypoints * (softened.shape[1] / photo.image.shape[1])
    left, right, _, *mouth = known
    # The distance of the eyes; where the face is turned, that of eyes and mouth is the longer one.
    size = max(np.linalg.norm(right - left), np.linalg.norm((left + right) / 2 - np.mean(mouth, 0)))
    return bool(np.linalg.norm(face.keypoints - known, axis=1).mean() < _NEAR * size)


def _detector(located: Sequence[bool], bounds: JudgeBounds) -> JudgeQuality:
    share = sum(located) / max(len(located), 1)
    figures: Figures = {"photos": len(located), "faces_found": share}
    return _judged(figures, len(located), bounds, ("faces_found", bounds.faces_found))


def _recogniser(embeddings: np.ndarray, identities: Sequence[str], bounds: JudgeBounds) -> JudgeQuality:
    from sklearn.metrics import roc_auc_score

    first, second = np.triu_indices(len(identities), 1)
    cosines = (embeddings @ embeddings.T)[first, second]
    names = np.array(identities)
    same = names[first] == names[second]
    pairs, others = int(same.sum()), int((~same).sum())
    figures: Figures = {"photos": len(identities), "same_pairs": pairs, "other_pairs": others}
    if not pairs or not others:
        return JudgeQuality(figures, "its photos show no two photos of a person, or only one person")
    figures["auc"] = float(roc_auc_score(same, cosines))
    for rate in _FALSE_ACCEPTS:
        if others * rate >= _FEWEST_FALSE:
            threshold = np.quantile(cosines[~same], 1 - rate, method="higher")
            figures[f"true_accepts_at_{rate:g}"] = float((cosines[same] > threshold).mean())
    return _judged(figures, min(len(identities), pairs, others), bounds, ("auc", bounds.recogniser_auc))


def _expression(readings: Readings, photos: Sequence[Photo], bounds: JudgeBounds) -> JudgeQuality:
    from sklearn.metrics import cohen_kappa_score

    known = [row for row, photo in enumerate(photos) if photo.record.expression in EXPRESSIONS]
    labels = np.array([EXPRESSIONS.index(photos[row].record.expression) for row in known], int)
    read = readings.expression[known]
    figures: Figures = {"photos": len(known), "expressions": len(np.unique(labels))}
    if figures["expressions"] < 2:
        return JudgeQuality(figures, "the labels of its photos show fewer than two expressions")
    figures["agreement"] = float((labels == read).mean())
    figures["kappa"] = float(cohen_kappa_score(labels, read))
    for index in np.unique(labels):
        figures[f"recall_{EXPRESSIONS[index]}"] = float((read[labels == index] == index).mean())
    return _judged(figures, len(known), bounds, ("kappa", bounds.expression_kappa))


def _pose(readings: Readings, photos: Sequence[Photo], bounds: JudgeBounds) -> JudgeQuality:
    yaw = np.array([photo.yaw for photo in photos])
    figures: Figures = {"photos": len(yaw)}
    if len(yaw) < 2 or not np.ptp(yaw) or not np.ptp(readings.yaw):
        return JudgeQuality(figures, "the yaw of its photos, or what it reads there, does not vary")
    figures["yaw_error"] = float(np.abs(readings.yaw - yaw).mean())
    figures["yaw_correlation"] = float(np.corrcoef(readings.yaw, yaw)[0, 1])
    known = [row for row, photo in enumerate(photos) if photo.record.pose in POSES]
    if known:
        labels = [POSES.index(photos[row].record.pose) for row in known]
        figures["pose_agreement"] = float((readings.pose[known] == labels).mean())
    correlation = ("yaw_correlation", bounds.yaw_correlation)
    return _judged(figures, len(yaw), bounds, correlation, most=("yaw_error", bounds.yaw_error))


def _text(text: TextJudge, prompts: Sequence[str], softened: Sequence[np.ndarray], bounds: JudgeBounds) -> JudgeQuality:
    """Measure how often a photo is nearer to its own prompt than to another photo's other prompt; a tie is half."""
    known = [row for row, prompt in enumerate(prompts) if prompt]
    texts = list(dict.fromkeys(prompts[row] for row in known))
    figures: Figures = {"photos": len(known), "prompts": len(texts)}
    if len(texts) < 2:
        return JudgeQuality(figures, "its photos have fewer than two different prompts")
    cosines = text.pictures([softened[row] for row in known]) @ text.texts(texts).T
    own = np.array([texts.index(prompts[row]) for row in known])
    gaps = cosines[np.arange(len(known)), own][:, None] - cosines
    other = own[:, None] != np.arange(len(texts))
    figures["own_over_other"] = float(((gaps > 0) + 0.5 * (gaps == 0))[other].mean())
    return _judged(figures, len(known), bounds, ("own_over_other", bounds.own_prompt))


def _judged(
    figures: Figures,
    count: int,
    bounds: JudgeBounds,
    least: tuple[str, float],
    *,
    most: tuple[str, float] | None = None,
) -> JudgeQuality:
    """Return the quality with a reason where `count` photos or pairs are too few, or a figure is beyond its bound."""
    if count < bounds.photos:
        return JudgeQuality(
            figures, f"{counted(count, 'photo or pair', 'photos or pairs')} to measure it on, expected {bounds.photos}"
        )
    misses = [f"{least[0]} {figures[least[0]]:.3f} < {least[1]:g}"] * (not figures[least[0]] >= least[1])
    if most is not None and not figures[most[0]] <= most[1]:
        misses.append(f"{most[0]} {figures[most[0]]:.3f} > {most[1]:g}")
    return JudgeQuality(figures, " and ".join(misses) + " on softened real photos" if misses else None)
