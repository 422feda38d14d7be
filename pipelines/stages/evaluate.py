"""evaluate: metrics and comparisons with intervals on held-out people, and a report with pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.chain import ADAPTER, METRICS, PROCESSED, REPORT
from pipelines.core.files import write_atomically
from pipelines.core.params import Params
from pipelines.versions.state import EVALUATION, STATE


@dataclass(frozen=True)
class Inputs:
    """The processed photos, the adapter, optional loss curves of its training, and the folder of drawn pictures."""

    processed: Path = Path(PROCESSED)
    adapter: Path = Path(ADAPTER)
    losses_anchoring: Path | None = None
    losses_imr: Path | None = None
    work: Path | None = Path(STATE) / EVALUATION


@dataclass(frozen=True)
class Outputs:
    """The metrics, the self-contained report, and where the headline of the metrics is written, if anywhere."""

    metrics: Path = Path(METRICS)
    report: Path = Path(REPORT)
    headline: Path | None = None


def run(params: Params, inputs: Inputs, outputs: Outputs) -> dict[str, Any]:
    """Evaluate `inputs.adapter`, write all outputs and return the metrics; raises as `evaluate`."""
    from pipelines.evaluation.evaluate import evaluate
    from pipelines.evaluation.headline import headline

    losses = {"anchoring": inputs.losses_anchoring, "reconfiguration": inputs.losses_imr}
    document = evaluate(
        params,
        inputs.processed,
        inputs.adapter,
        metrics=outputs.metrics,
        report=outputs.report,
        losses={name: file for name, file in losses.items() if file is not None},
        work=inputs.work,
    )
    if outputs.headline is not None:
        write_atomically(outputs.headline, json.dumps(headline(document), indent=2) + "\n")
    return document
