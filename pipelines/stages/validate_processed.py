"""validate_processed: Great Expectations on processed rows, before training."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.params import Params
from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows
from pipelines.core.screen import one_message
from pipelines.data.faces.calibration import pack_traits
from pipelines.data.validation.one_person import find_twins
from pipelines.data.validation.own_checks import own_checks
from pipelines.data.validation.processed_frame import doubtful_faces, processed_frame
from pipelines.data.validation.processed_suite import processed_checks
from pipelines.data.validation.run_checks import run_checks
from pipelines.data.validation.verdict import Outputs, Verdict

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.data.validation.check import Check


@dataclass(frozen=True)
class Inputs:
    """`processed`: the output of preprocess; `faces`: the dataset it came from, to compare the number of rows.

    `expectations`: a folder of expectations of the team's own, which may be missing.
    """

    processed: Path
    faces: Path | None = None
    expectations: Path | None = None


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Verdict:
    """Check the processed rows and write the verdict, also a negative one; print who is one person under two names, and
    which faces may be none.

    Raises UserError where a folder holds no such rows, the recogniser has no threshold, an own expectation is wrong or
    Data Docs cannot be written; StageFailed naming every expectation that failed.
    """
    frame, checks, found = prepare(params, inputs)
    # The names are for whoever runs this, not for the verdict.
    for line in found:
        print(f"validate_processed: {one_message(line)}", file=sys.stderr)
    verdict = run_checks("validate_processed", checks, frame, outputs.data_docs)
    verdict.conclude(outputs.report)
    return verdict


def prepare(params: Params, inputs: Inputs) -> tuple[pd.DataFrame, list[Check], list[str]]:
    """Return the frame (a row per processed row, in their order), what is expected of it, and lines that name people
    and photos."""
    rows = None if inputs.faces is None else open_rows(inputs.faces, DATASET_SCHEMA).count_rows()
    frame = processed_frame(inputs.processed)
    twins = find_twins(inputs.processed, params)
    frame["other_names"] = frame["identity"].isin([name for pair in twins for name in pair.names]).astype(float)
    doubtful = pack_traits(params.preprocess).doubtful
    lines = [*(pair.line() for pair in twins), *doubtful_faces(inputs.processed, doubtful)]
    checks = processed_checks(params.validate_processed, rows, doubtful)
    return frame, [*checks, *own_checks(inputs.expectations, "validate_processed", frame, checks)], lines
