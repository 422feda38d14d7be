"""validate_processed: Great Expectations on what preprocessing found, before anything is trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.core.params import Params
from pipelines.core.records import DATASET_SCHEMA, open_rows
from pipelines.data.validation.processed_frame import processed_frame
from pipelines.data.validation.processed_suite import processed_checks
from pipelines.data.validation.run_checks import run_checks
from pipelines.data.validation.verdict import Outputs, Verdict


@dataclass(frozen=True)
class Inputs:
    """`processed`: what preprocess wrote; `faces`: the dataset it came from, to compare the number of rows."""

    processed: Path
    faces: Path | None = None


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Verdict:
    """Judge the processed rows; the verdict is written whatever it is.

    Raises UserError where a folder holds no such rows; StageFailed naming every expectation that failed.
    """
    rows = None if inputs.faces is None else open_rows(inputs.faces, DATASET_SCHEMA).count_rows()
    frame = processed_frame(inputs.processed)
    checks = processed_checks(params.validate_processed, rows)
    verdict = run_checks("validate_processed", checks, frame, outputs.data_docs)
    verdict.conclude(outputs.report)
    return verdict
