"""register: make the adapter a version of the registered model, and the champion if it passes the gates.

Not a DVC stage, since it has effects outside the workspace; it is idempotent (pipelines/registry/promotion.py).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.chain import ADAPTER, METRICS, PROCESSED, REPORT
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params
from pipelines.evaluation.belonging import read_document
from pipelines.registry.log_model import Challenger
from pipelines.registry.promotion import Registration, register
from pipelines.registry.recorder import record_results
from pipelines.registry.results import parameters_of, results_of
from pipelines.versions.dvc import push_data
from pipelines.versions.older import warn_if_older


@dataclass(frozen=True)
class Inputs:
    """The checkout `root` and, relative to it, the adapter, its evaluation and the processed photos."""

    root: Path
    adapter: Path = Path(ADAPTER)
    metrics: Path = Path(METRICS)
    report: Path = Path(REPORT)
    processed: Path = Path(PROCESSED)


def run(params: Params, inputs: Inputs) -> Registration:
    """Register the adapter with the parameters that made it, and apply the gates.

    Raises UserError where adapter or metrics are missing, StageFailed where they are not one result.
    """
    root = inputs.root
    for path in (inputs.adapter / "config.json", inputs.metrics):
        if not (root / path).is_file():
            raise UserError(f"{path}: missing; run `dynamicid repro` first")
    warn_if_older(root, inputs.metrics)
    results = results_of(root)
    params, changed = parameters_of(results, params)
    if changed:
        _say(f"the parameters have changed, those that made the result are registered: {'; '.join(changed)}")
    if code := sorted({path for result in results for path in result.changed_code}):
        _say(f"code or networks have changed since, so no git commit is recorded: {', '.join(code)}")
    metrics = read_document(root / inputs.metrics)
    if (split := metrics.get("settings", {}).get("split", "test")) != "test":
        raise StageFailed(
            f"{inputs.metrics}: figures of split {split}, on which settings are chosen; versions are judged on test: "
            "`dynamicid evaluate --set evaluate.split=test`"
        )
    # Copy the data first: that of a registered version should be on more than one disk.
    push_data(root)
    # After `dvc repro` no stage has a run; that of the evaluation follows with the version.
    record_results(root, results[:-1], params)
    challenger = Challenger(
        root, root / inputs.adapter, metrics, root / inputs.report, root / inputs.processed, results
    )
    return register(params, challenger)


def _say(text: str) -> None:
    print(f"register: {text}", file=sys.stderr)
