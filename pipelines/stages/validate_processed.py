"""validate_processed: Great Expectations on processed rows, before training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.core.params import Params
from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows
from pipelines.data.validation.processed_frame import processed_frame
from pipelines.data.validation.processed_suite import processed_checks
from pipelines.data.validation.run_checks import run_checks
from pipelines.data.validation.verdict import Outputs, Verdict


@dataclass(frozen=True)
class Inputs:
    """`processed`: the output of preprocess; `faces`: the dataset it came from, to compare the number of rows."""

    processed: Path
    faces: Path | None = None


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Verdict:
    """Check the processed rows and write the verdict, also a negative one.

    Raises UserError where a folder holds no such rows; StageFailed naming every expectation that failed.
    """
    rows = None if inputs.faces is None else open_rows(inputs.faces, DATASET_SCHEMA).count_rows()
    frame = processed_frame(inputs.processed)
    checks = processed_checks(params.validate_processed, rows)
    verdict = run_checks("validate_processed", checks, frame, outputs.data_docs)
    verdict.conclude(outputs.report)
    return verdict
