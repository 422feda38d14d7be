"""validate_processed: Great Expectations on processed rows, before training."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.params import Params
from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA, count_rows
from pipelines.core.screen import one_message
from pipelines.data.faces.calibration import pack_traits
from pipelines.data.validation.on_spark import run_on_spark, runs_on_spark
from pipelines.data.validation.one_person import find_twins
from pipelines.data.validation.own_checks import check_spark, own_checks
from pipelines.data.validation.processed_frame import doubtful_faces, empty_frame, processed_frame, spark_frame
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
    if on_spark := runs_on_spark(params.validate_.engine, count_rows(inputs.processed, PROCESSED_SCHEMA)):
        check_spark(inputs.expectations)
    expected = _expected(params, inputs)
    # The names are for whoever runs this, not for the verdict.
    for line in expected.lines:
        print(f"validate_processed: {one_message(line)}", file=sys.stderr)
    if on_spark:
        verdict = _run_on_spark(params, inputs, outputs, expected)
    else:
        frame, checks = _prepared(inputs, expected)
        verdict = run_checks("validate_processed", checks, frame, outputs.data_docs)
    verdict.conclude(outputs.report)
    return verdict


def prepare(params: Params, inputs: Inputs) -> tuple[pd.DataFrame, list[Check]]:
    """Return the frame (a row per processed row, in their order) and what is expected of it."""
    return _prepared(inputs, _expected(params, inputs))


@dataclass(frozen=True)
class _Expected:
    """The project's checks, the people who seem to have another name in another split, and lines that name them and
    doubtful faces."""

    checks: list[Check]
    other_names: frozenset[str]
    lines: list[str]


def _expected(params: Params, inputs: Inputs) -> _Expected:
    rows = None if inputs.faces is None else count_rows(inputs.faces, DATASET_SCHEMA)
    twins = find_twins(inputs.processed, params)
    doubtful = pack_traits(params.preprocess).doubtful
    return _Expected(
        processed_checks(params.validate_processed, rows, doubtful),
        frozenset(name for pair in twins for name in pair.names),
        [*(pair.line() for pair in twins), *doubtful_faces(inputs.processed, doubtful)],
    )


def _prepared(inputs: Inputs, expected: _Expected) -> tuple[pd.DataFrame, list[Check]]:
    frame, checks = processed_frame(inputs.processed, expected.other_names), expected.checks
    return frame, [*checks, *own_checks(inputs.expectations, "validate_processed", frame, checks)]


def _run_on_spark(params: Params, inputs: Inputs, outputs: Outputs, expected: _Expected) -> Verdict:
    def frame(context: Any) -> Any:
        return spark_frame(context, inputs.processed, expected.other_names)

    return run_on_spark(
        "validate_processed",
        expected.checks,
        own=inputs.expectations,
        sample=empty_frame(),
        frame=frame,
        cluster=params.preprocess,
        docs=outputs.data_docs,
    )
