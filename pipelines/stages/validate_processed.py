"""validate_processed: Great Expectations on processed rows, before training."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.params import Params
from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows
from pipelines.core.screen import one_message
from pipelines.data.faces.calibration import pack_traits
from pipelines.data.validation.one_person import find_twins
from pipelines.data.validation.processed_frame import doubtful_faces, processed_frame
from pipelines.data.validation.processed_suite import processed_checks
from pipelines.data.validation.run_checks import run_checks
from pipelines.data.validation.verdict import Outputs, Verdict


@dataclass(frozen=True)
class Inputs:
    """`processed`: the output of preprocess; `faces`: the dataset it came from, to compare the number of rows."""

    processed: Path
    faces: Path | None = None


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Verdict:
    """Check the processed rows and write the verdict, also a negative one; print who is one person under two names, and
    which faces may be none.

    Raises UserError where a folder holds no such rows or the recogniser has no threshold; StageFailed naming every
    expectation that failed.
    """
    rows = None if inputs.faces is None else open_rows(inputs.faces, DATASET_SCHEMA).count_rows()
    frame = processed_frame(inputs.processed)
    twins = find_twins(inputs.processed, params)
    # The names are for whoever runs this, not for the verdict.
    for pair in twins:
        print(f"validate_processed: {one_message(pair.line())}", file=sys.stderr)
    frame["other_names"] = frame["identity"].isin([name for pair in twins for name in pair.names]).astype(float)
    doubtful = pack_traits(params.preprocess).doubtful
    for face in doubtful_faces(inputs.processed, doubtful):
        print(f"validate_processed: {one_message(face)}", file=sys.stderr)
    checks = processed_checks(params.validate_processed, rows, doubtful)
    verdict = run_checks("validate_processed", checks, frame, outputs.data_docs)
    verdict.conclude(outputs.report)
    return verdict
