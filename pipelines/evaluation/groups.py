"""Groups of people with separate metrics: apparent skin tone, and the sex named in captions.

Both are coarse estimates that show whether a model performs worse for some people; they are only in the report.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.intervals import Interval
from pipelines.evaluation.photos import HeldOut
from pipelines.evaluation.results import person_means
from pipelines.evaluation.scoring import Scores

# Individual typology angle in degrees (Chardon et al. 1991): above 41 light, 10 to 41 medium, below 10 dark.
TONES: tuple[tuple[str, float], ...] = (("light skin", 41.0), ("medium skin", 10.0), ("dark skin", -180.0))
SEXES: dict[str, re.Pattern[str]] = {
    "women": re.compile(r"\b(woman|girl|lady|female)\b", re.IGNORECASE),
    "men": re.compile(r"\b(man|boy|gentleman|male)\b", re.IGNORECASE),
}
GROUP_METRICS: tuple[str, ...] = ("id_similarity", "expression_accuracy", "pose_accuracy", "face_rate")
# Jaw, eyelid, nostril and mouth corner of each side (iBUG numbers); their mean is on the cheek.
_CHEEKS = ((2, 41, 31, 48), (14, 46, 35, 54))
_CHEEK_RADIUS = 0.06


def typology_angle(image: np.ndarray, landmarks: np.ndarray) -> float:
    """Return the individual typology angle of the cheeks in degrees, high for light skin.

    `image` (H, W, 3) uint8 RGB, `landmarks` (68, 2) in its pixels. The median over both cheeks compensates for light
    from one side.
    """
    mask = np.zeros(image.shape[:2], np.uint8)
    radius = max(1, round(float(np.linalg.norm(landmarks[8] - landmarks[27])) * _CHEEK_RADIUS))
    for points in _CHEEKS:
        x, y = landmarks[list(points)].mean(0)
        cv2.circle(mask, (round(float(x)), round(float(y))), radius, 255, -1)
    lab = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)[mask > 0]
    if not len(lab):
        return 0.0
    lightness, blue_yellow = np.median(lab[:, 0]), np.median(lab[:, 2])
    return float(np.degrees(np.arctan2(lightness - 50.0, max(float(blue_yellow), 1e-3))))


def tone_of(angle: float) -> str:
    """Return the skin group of a typology angle in degrees."""
    return next(name for name, bound in TONES if angle >= bound)


def sex_of(prompts: Sequence[str]) -> str | None:
    """Return the sex named in most of a person's captions, None where neither is named or both equally often."""
    counts = {name: sum(bool(pattern.search(prompt)) for prompt in prompts) for name, pattern in SEXES.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] > 0 and list(counts.values()).count(counts[best]) == 1 else None


def group_people(questions: EvaluationSet, held_out: HeldOut) -> dict[str, list[int]]:
    """Return the people (indices) of every group that is not empty."""
    captions: dict[str, list[str]] = {}
    for record in held_out.records:
        captions.setdefault(record.identity, []).append(record.prompt)
    groups: dict[str, list[int]] = {name: [] for name in (*(name for name, _ in TONES), *SEXES)}
    for index, person in enumerate(questions.people):
        reference = held_out.photos[person.reference]
        groups[tone_of(typology_angle(reference.image, reference.landmarks))].append(index)
        sex = sex_of(captions.get(person.identity, ()))
        if sex:
            groups[sex].append(index)
    return {name: members for name, members in groups.items() if members}


def score_groups(groups: Mapping[str, list[int]], scores: Scores, people: int) -> dict[str, dict[str, Interval]]:
    """Return GROUP_METRICS of the model in every group, with Student's intervals over the people of the group.

    A bootstrap over so few people would give intervals that are far too narrow. A metric with values of fewer
    than two people of a group is left out.
    """
    table: dict[str, dict[str, Interval]] = {}
    for name, members in groups.items():
        table[name] = {}
        for metric in GROUP_METRICS:
            means = person_means(scores, metric, people)[members]
            known = means[~np.isnan(means)]
            if len(known) > 1:
                table[name][metric] = _students(known)
    return table


def _students(values: np.ndarray) -> Interval:
    """Return the mean of two or more values with Student's 95 % interval."""
    from scipy.stats import t

    value = float(values.mean())
    reach = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(value, value - reach, value + reach)
