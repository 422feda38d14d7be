"""register: make the adapter a version of the registered model, and the champion if it passes the gates.

Not a DVC stage, since it has effects outside the workspace; it is idempotent (pipelines/registry/promotion.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.chain import ADAPTER, METRICS, PROCESSED, REPORT
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.registry.log_model import Challenger
from pipelines.registry.promotion import Registration, register
from pipelines.versions.dvc import push_data


@dataclass(frozen=True)
class Inputs:
    """The checkout `root` and, relative to it, the adapter, its evaluation and the processed photos."""

    root: Path
    adapter: Path = Path(ADAPTER)
    metrics: Path = Path(METRICS)
    report: Path = Path(REPORT)
    processed: Path = Path(PROCESSED)


def run(params: Params, inputs: Inputs) -> Registration:
    """Register the adapter and apply the gates; raise UserError where adapter or metrics are missing."""
    root = inputs.root
    for path in (inputs.adapter / "config.json", inputs.metrics):
        if not (root / path).is_file():
            raise UserError(f"{path}: missing; run `dynamicid repro` first")
    metrics = json.loads((root / inputs.metrics).read_text(encoding="utf-8"))
    # Copy the data first: that of a registered version should be on more than one disk.
    push_data(root)
    challenger = Challenger(root, root / inputs.adapter, metrics, root / inputs.report, root / inputs.processed)
    return register(params, challenger)
