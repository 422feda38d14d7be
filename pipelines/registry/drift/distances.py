"""Distances between two samples, 0 where they agree, and the distances to expect by chance.

    numbers     Wasserstein distance in robust standard deviations of the reference: the larger one by median deviation
                and by quartiles, not below SMALLEST
    words       Jensen–Shannon distance (base 2, in [0, 1])
    embedding   2 · AUC − 1 of a classifier between the samples, on people that it was not trained on (in [0, 1])

Photos of one person are not independent, so chance is measured over people: the same distance between two disjoint
groups of the reference's people, each as large as the other sample, or half of the reference if that is smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipelines.registry.drift.features import EMBEDDING, FEATURES, NUMBERS, SMALLEST, Sample

_COMPONENTS = 32
_FOLDS = 5
# The classifier costs a thousand times the other distances, so only one of this many draws is made for it.
_EMBEDDING_SHARE = 5


@dataclass(frozen=True)
class Distance:
    """The distance of one feature from the reference, and the 95th percentile of the distances by chance."""

    value: float
    chance: float


def distances(reference: Sample, current: Sample, resamples: int, seed: int = 0) -> dict[str, Distance]:
    """Return the distance of every feature with values for four people of `reference` and two of `current`."""
    return {
        feature: found
        for feature in FEATURES
        if (found := _distance(feature, reference, current, resamples, seed)) is not None
    }


def _distance(feature: str, reference: Sample, current: Sample, resamples: int, seed: int) -> Distance | None:
    reference, current = _known(feature, reference), _known(feature, current)
    ours, theirs = len(np.unique(current.person)), len(np.unique(reference.person))
    # Chance needs two groups of two people; the classifier needs people to train on and others to test on.
    if theirs < 4 or ours < 2:
        return None
    measure = _measure(feature)
    draws = max(2, resamples // _EMBEDDING_SHARE) if feature == EMBEDDING else resamples
    rng = np.random.default_rng([seed, FEATURES.index(feature)])
    size = min(ours, theirs // 2)
    chance = [measure(*_two_groups(reference, size, rng)) for _ in range(draws)]
    return Distance(measure(reference, current), float(np.quantile(chance, 0.95)))


def _measure(feature: str) -> Callable[[Sample, Sample], float]:
    if feature == EMBEDDING:
        return _embedding_distance
    if feature in NUMBERS:
        smallest = SMALLEST[feature]
        return lambda a, b: _number_distance(a.numbers[feature], b.numbers[feature], smallest)
    return lambda a, b: _word_distance(a.words[feature], b.words[feature])


def _known(feature: str, sample: Sample) -> Sample:
    if feature == EMBEDDING:
        return sample.rows(~np.isnan(sample.embeddings[:, 0]))
    if feature in NUMBERS:
        return sample.rows(~np.isnan(sample.numbers[feature]))
    return sample.rows(sample.words[feature] != "")


def _two_groups(sample: Sample, people: int, rng: np.random.Generator) -> tuple[Sample, Sample]:
    """Return all photos of two disjoint groups of `people` people each."""
    names = rng.permutation(np.unique(sample.person))
    groups = (names[:people], names[people : 2 * people])
    first, second = (sample.rows(np.isin(sample.person, group)) for group in groups)
    return first, second


def _number_distance(reference: np.ndarray, current: np.ndarray, smallest: float) -> float:
    from scipy.stats import iqr, median_abs_deviation, wasserstein_distance

    # Both are a standard deviation for a normal distribution, and unlike it do not grow with a few odd photos.
    spreads = (robust(reference, scale="normal") for robust in (median_abs_deviation, iqr))
    return float(wasserstein_distance(reference, current)) / max(smallest, *map(float, spreads))


def _word_distance(reference: np.ndarray, current: np.ndarray) -> float:
    from scipy.spatial.distance import jensenshannon

    words = np.union1d(reference, current)
    a, b = ((sample[:, None] == words).mean(axis=0) for sample in (reference, current))
    return float(np.nan_to_num(jensenshannon(a, b, base=2)))


def _embedding_distance(reference: Sample, current: Sample) -> float:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.concatenate([reference.embeddings, current.embeddings])
    side = np.repeat([0, 1], [len(reference), len(current)])
    people = np.concatenate([reference.person, current.person])
    # Every fold needs people of both samples.
    folds = min(_FOLDS, len(np.unique(reference.person)), len(np.unique(current.person)))
    components = max(1, min(_COMPONENTS, rows.shape[1], len(rows) // 4))
    model = make_pipeline(PCA(components, random_state=0), StandardScaler(), LogisticRegression(C=0.1))
    chosen = StratifiedGroupKFold(folds)
    guess = cross_val_predict(model, rows, side, groups=people, cv=chosen, method="predict_proba")
    return max(0.0, 2 * float(roc_auc_score(side, guess[:, 1])) - 1)
