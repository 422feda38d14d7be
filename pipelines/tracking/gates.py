"""Promotion gates: absolute bounds and no-regression margins, every failed one reported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipelines.errors import UserError
from pipelines.params import Gate


@dataclass(frozen=True)
class Champion:
    """The version that a challenger is compared with, and its metrics on the same evaluation set."""

    version: str
    metrics: dict[str, Any]


def _value(metrics: dict[str, Any], gate: Gate, whose: str) -> float:
    try:
        return float(metrics[gate.variant][gate.metric]["value"])
    except KeyError:
        raise UserError(
            f"gate {gate.variant}.{gate.metric}: {whose} has no such metric; expected a name of reports/metrics.json"
        ) from None


def failed_gates(gates: Iterable[Gate], challenger: dict[str, Any], champion: Champion | None) -> list[str]:
    """Return one line per failed gate: `metric value < bound (champion vN: value)`.

    `challenger` and `champion.metrics` have the layout of `reports/metrics.json`. Without a champion only the
    absolute bounds apply. A regression is a value worse than the champion's by more than `max_regression`; worse
    means lower, except for gates that bound from above. Raises UserError where a gate names an unknown metric.
    """
    failures = []
    for gate in gates:
        value = _value(challenger, gate, "the challenger")
        note = ""
        if champion is not None:
            note = f" (champion v{champion.version}: {_value(champion.metrics, gate, 'the champion'):.3f})"
        if gate.minimum is not None and value < gate.minimum:
            failures.append(f"{gate.metric} {value:.3f} < {gate.minimum:.3f}{note}")
        if gate.maximum is not None and value > gate.maximum:
            failures.append(f"{gate.metric} {value:.3f} > {gate.maximum:.3f}{note}")
        if gate.max_regression is not None and champion is not None:
            best = _value(champion.metrics, gate, "the champion")
            if gate.maximum is not None and gate.minimum is None:
                if value > best + gate.max_regression:
                    failures.append(f"{gate.metric} {value:.3f} > {best + gate.max_regression:.3f}{note}")
            elif value < best - gate.max_regression:
                failures.append(f"{gate.metric} {value:.3f} < {best - gate.max_regression:.3f}{note}")
    return failures
