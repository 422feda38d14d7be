"""From distances to a verdict: the features that drifted, and whether to warn or stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from pipelines.core.sections.operations import Drift, DriftLimit
from pipelines.registry.drift.distances import Distance, distances
from pipelines.registry.drift.features import NUMBERS, WORDS, Sample

State = Literal["ok", "warn", "stop"]
WHOLE = "whole"
ADDED = "added"
# Fewer new photos say too little about their distribution.
_FEWEST = 20
_ORDER: tuple[State, ...] = ("ok", "warn", "stop")


@dataclass(frozen=True)
class FeatureDrift:
    """The drift of one feature in one part of the new version."""

    feature: str
    part: str  # whole: the version; added: the photos that the champion's version does not have
    distance: float
    chance: float
    warn: float
    stop: float
    state: State
    words: str = ""  # what changed, in the feature's own unit

    def line(self) -> str:
        """Return `feature distance > limit` with the part, the chance distance and what changed."""
        limit = self.stop if self.state == "stop" else self.warn
        where = "" if self.part == WHOLE else " (new photos)"
        words = f"; {self.words}" if self.words else ""
        return f"{self.feature}{where} {self.distance:.3f} > {limit:.3f} (chance: {self.chance:.3f}{words})"


@dataclass(frozen=True)
class Verdict:
    """The contents of `drift.json`."""

    state: str  # ok, warn, stop; no_champion, or not_trained_here, where there is nothing to compare with
    champion: str | None = None
    reference_version: str | None = None
    current_version: str | None = None
    photos: dict[str, int] = field(default_factory=dict)
    findings: tuple[FeatureDrift, ...] = ()

    def lines(self, *states: str) -> list[str]:
        """Return one line per finding in one of `states`."""
        return [one.line() for one in self.findings if one.state in states]

    def plain(self) -> dict[str, Any]:
        """Return the verdict for JSON."""
        return asdict(self)


def compare(reference: Sample, current: Sample, params: Drift) -> tuple[FeatureDrift, ...]:
    """Compare the new version, and its new photos alone, with the reference.

    A feature has drifted where its distance exceeds both its limit and chance. New photos show a change earlier than
    the whole version, but can only warn.
    """

    def findings(part: str, sample: Sample, worst: State) -> tuple[FeatureDrift, ...]:
        found = _findings(part, distances(reference, sample, params.resamples), params.limits, worst)
        return tuple(replace(one, words=change_in_words(one.feature, reference, sample)) for one in found)

    found = findings(WHOLE, current, "stop")
    added = current.rows(~np.isin(current.image_ids, reference.image_ids))
    if _FEWEST <= len(added) < len(current):
        found += findings(ADDED, added, "warn")
    return found


def change_in_words(feature: str, reference: Sample, current: Sample) -> str:
    """Return how `current` differs from `reference` in the unit of the feature; "" where one of them has no value.

    Numbers by their median and middle half, words by the one whose share changed most; an embedding has no words.
    """
    if feature in NUMBERS:
        samples = [one.numbers[feature][~np.isnan(one.numbers[feature])] for one in (reference, current)]
        if not all(len(values) for values in samples):
            return ""
        return " → ".join(_middle(feature, values) for values in samples)
    if feature not in WORDS:
        return ""
    before, now = (one.words[feature][one.words[feature] != ""] for one in (reference, current))
    shares = {
        word: (float((before == word).mean()), float((now == word).mean()))
        for word in (np.union1d(before, now) if len(before) and len(now) else ())
    }
    if not shares:
        return ""
    word = max(shares, key=lambda one: abs(shares[one][1] - shares[one][0]))
    return f"{word} {shares[word][0]:.0%} → {shares[word][1]:.0%}"


def _middle(feature: str, values: np.ndarray) -> str:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    if feature == "size":
        low, middle, high = (2**one for one in (low, middle, high))
    digits, unit = {"brightness": (2, ""), "size": (0, " pixels")}.get(feature, (0, "°"))
    return f"{middle:z.{digits}f}{unit} ({low:z.{digits}f} to {high:z.{digits}f})"


def state_of(findings: tuple[FeatureDrift, ...]) -> State:
    """Return the worst state of the findings."""
    return max((one.state for one in findings), key=_ORDER.index, default="ok")


def _findings(
    part: str, found: Mapping[str, Distance], limits: Mapping[Any, DriftLimit], worst: State
) -> tuple[FeatureDrift, ...]:
    findings = []
    for feature, distance in found.items():
        limit = limits.get(feature)
        if limit is None:
            continue
        state: State = "ok"
        if distance.value > distance.chance and distance.value > limit.warn:
            state = "stop" if distance.value > limit.stop and worst == "stop" else "warn"
        numbers = (round(distance.value, 6), round(distance.chance, 6))
        findings.append(FeatureDrift(feature, part, *numbers, limit.warn, limit.stop, state))
    return tuple(findings)
