"""evaluate: metrics and comparisons with intervals on held-out people, and a report with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.chain import ADAPTER, METRICS, PROCESSED, REPORT
from pipelines.core.params import Params


@dataclass(frozen=True)
class Inputs:
    """The processed photos, the adapter, and optional loss curves of its training for the report."""

    processed: Path = Path(PROCESSED)
    adapter: Path = Path(ADAPTER)
    losses_anchoring: Path | None = None
    losses_imr: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """The metrics and the self-contained report."""

    metrics: Path = Path(METRICS)
    report: Path = Path(REPORT)


def run(params: Params, inputs: Inputs, outputs: Outputs) -> dict[str, Any]:
    """Evaluate `inputs.adapter`, write both outputs and return the metrics; raises as `evaluate`."""
    from pipelines.evaluation.evaluate import evaluate

    losses = {"anchoring": inputs.losses_anchoring, "reconfiguration": inputs.losses_imr}
    return evaluate(
        params,
        inputs.processed,
        inputs.adapter,
        metrics=outputs.metrics,
        report=outputs.report,
        losses={name: file for name, file in losses.items() if file is not None},
    )
