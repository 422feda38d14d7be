"""Promotion gates: absolute bounds and limits of regression against the champion; every failed bound is reported.

A gate's `doubt` is its rule for the 95 % confidence interval:

    ignore    only the value counts
    passes    the gate fails only where the whole interval is beyond the bound
    refuses   the gate fails where any part of the interval is beyond the bound

For a regression, the interval is that of the difference: a paired bootstrap over the people of the evaluation set where
both results list them, otherwise the MOVER interval of the two intervals (Zou and Donner 2008).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.core.errors import UserError
from pipelines.core.sections.evaluation import Gate
from pipelines.evaluation.intervals import Interval, NotMeasurable, bootstrap, mean_over_people, resample


@dataclass(frozen=True)
class Champion:
    """The version that a challenger is compared with, and its metrics on the same evaluation set."""

    version: str
    metrics: dict[str, Any]


@dataclass(frozen=True)
class GateResult:
    """The challenger's result for one bound on one metric; `edge` is the value or interval end compared."""

    metric: str
    value: float | None
    relation: str  # of failure: "<" for a lower bound, ">" for an upper one
    bound: float | None
    edge: float | None
    doubt: str
    kind: str  # absolute or regression
    champion: str | None
    champion_value: float | None
    passed: bool
    reason: str | None = None  # why the metric is not measurable: then there are no values, and the gate fails

    def line(self) -> str:
        """Return `metric value < bound (champion vN: value)`, with the interval's end where that was compared.

        `metric is not measurable (reason)` where there is no value.
        """
        if self.value is None:
            return f"{self.metric} is not measurable ({self.reason})"
        note = "" if self.champion is None else f" (champion v{self.champion}: {self.champion_value:.3f})"
        judged = "" if self.doubt == "ignore" else f", 95 % interval reaches {self.edge:.3f}"
        return f"{self.metric} {self.value:.3f} {self.relation} {self.bound:.3f}{note}{judged}"

    def plain(self) -> dict[str, Any]:
        """Return the result as JSON values, the evidence of a decision."""
        return {key: round(one, 6) if isinstance(one, float) else one for key, one in asdict(self).items()}


def judge(gates: Iterable[Gate], challenger: dict[str, Any], champion: Champion | None) -> list[GateResult]:
    """Check every bound of every gate; without a champion only the absolute ones.

    `challenger` and `champion.metrics` have the layout of `reports/metrics.json`. A regression is a value worse than
    the champion's by more than `max_regression`; worse means lower, except for gates with an upper bound only. Where a
    metric is not measurable, of the challenger or of a champion that it is compared with, the gate fails.
    Raises UserError where a gate names an unknown metric.
    """
    return [result for gate in gates for result in _bounds(gate, challenger, champion)]


def _bounds(gate: Gate, challenger: dict[str, Any], champion: Champion | None) -> Iterable[GateResult]:
    ours = _interval(challenger, gate, "the challenger")
    theirs = None if champion is None else _interval(champion.metrics, gate, f"champion v{champion.version}")
    name = gate.metric if gate.variant == "model" else f"{gate.variant}.{gate.metric}"
    version = None if champion is None else champion.version
    judged: dict[str, Any] = {"metric": name, "doubt": gate.doubt, "champion": version}

    def unknown(kind: str, reason: str) -> GateResult:
        none: dict[str, Any] = dict.fromkeys(("value", "bound", "edge", "champion_value"))
        return GateResult(**judged, **none, relation="", kind=kind, passed=False, reason=reason)

    if isinstance(ours, NotMeasurable):
        yield unknown("absolute", ours.reason)
        return
    known = None if isinstance(theirs, NotMeasurable) else theirs

    def check(kind: str, bound: float, upper: bool, low: float, high: float) -> GateResult:
        best, worst = (low, high) if upper else (high, low)
        edge = {"ignore": ours.value, "passes": best, "refuses": worst}[gate.doubt]
        return GateResult(
            **judged,
            value=ours.value,
            relation=">" if upper else "<",
            bound=bound,
            edge=edge,
            kind=kind,
            champion_value=None if known is None else known.value,
            passed=edge <= bound if upper else edge >= bound,
        )

    if gate.minimum is not None:
        yield check("absolute", gate.minimum, False, ours.low, ours.high)
    if gate.maximum is not None:
        yield check("absolute", gate.maximum, True, ours.low, ours.high)
    if gate.max_regression is None or champion is None:
        return
    if isinstance(theirs, NotMeasurable):
        yield unknown("regression", f"of champion v{version}: {theirs.reason}")
    elif theirs is not None:
        upper = gate.maximum is not None and gate.minimum is None
        bound = theirs.value + gate.max_regression if upper else theirs.value - gate.max_regression
        gap = _paired(gate, challenger, champion.metrics) or _unpaired(ours, theirs)
        # The interval of the difference, shifted to be compared with the bound.
        yield check("regression", bound, upper, theirs.value + gap.low, theirs.value + gap.high)


def _interval(metrics: dict[str, Any], gate: Gate, whose: str) -> Interval | NotMeasurable:
    try:
        # s is id_similarity between floor and ceiling: no recogniser's cosine, so that a bound holds for any judge.
        found = (
            metrics["normalised"][gate.variant]["id_similarity"]
            if gate.metric == "s"
            else metrics[gate.variant][gate.metric]
        )
        if found["value"] is None:
            return NotMeasurable(str(found.get("reason")))
        return Interval(*(float(found.get(end, found["value"])) for end in ("value", "low", "high")))
    except KeyError:
        raise UserError(
            f"gate {gate.variant}.{gate.metric}: {whose} has no such metric; expected a name of reports/metrics.json "
            "(those of several people are there where evaluate.several_people asks for pictures)"
        ) from None


def _unpaired(ours: Interval, theirs: Interval) -> Interval:
    """Return challenger − champion with the MOVER interval."""
    gap = ours.value - theirs.value
    low = gap - math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    high = gap + math.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return Interval(gap, low, high)


def _paired(gate: Gate, challenger: dict[str, Any], champion: dict[str, Any]) -> Interval | None:
    """Return the mean paired difference over people (or pairs), None where the results do not allow it."""
    if gate.variant != "model" or challenger.get("evaluation_set") != champion.get("evaluation_set"):
        return None
    a, b = (one.get("by_unit", {}).get(gate.metric) for one in (challenger, champion))
    if a is None or b is None or len(a) != len(b):
        return None
    import numpy as np

    gap = np.array(a, dtype=float) - np.array(b, dtype=float)  # null becomes NaN and is left out
    return None if np.isnan(gap).all() else bootstrap(mean_over_people(gap), resample(len(gap), 2000, 0))
