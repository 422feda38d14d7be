"""validate: Great Expectations on the metadata of a dataset version, before any photo is looked at."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.params import Params
from pipelines.data.validation.dataset_frame import dataset_frame
from pipelines.data.validation.dataset_suite import dataset_checks
from pipelines.data.validation.judge import judge
from pipelines.data.validation.verdict import Verdict


@dataclass(frozen=True)
class Inputs:
    """`faces`: a dataset folder."""

    faces: Path


@dataclass(frozen=True)
class Outputs:
    """`report`: the folder of `verdict.json`; `data_docs`: where the HTML goes, or None for no HTML."""

    report: Path
    data_docs: Path | None = None


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Verdict:
    """Judge the dataset; the verdict is written whatever it is.

    Raises UserError where the folder is no dataset; StageFailed naming every expectation that failed.
    """
    frame = dataset_frame(inputs.faces)
    verdict = judge("validate", dataset_checks(params.validate_), frame, outputs.data_docs)
    verdict.write(outputs.report / "verdict.json")
    for warning in verdict.warnings():
        print(f"validate: warning: {warning.sentence()}", file=sys.stderr)
    verdict.check()
    return verdict
