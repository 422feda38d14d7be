"""validate: Great Expectations on the metadata of a dataset version, before any photo is analysed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.core.params import Params
from pipelines.core.row_schemas import DATASET_SCHEMA, count_rows
from pipelines.data.validation.dataset_frame import dataset_frame, frame_of, spark_frame
from pipelines.data.validation.dataset_suite import dataset_checks
from pipelines.data.validation.on_spark import run_on_spark, runs_on_spark
from pipelines.data.validation.own_checks import check_spark, own_checks
from pipelines.data.validation.run_checks import run_checks
from pipelines.data.validation.verdict import Outputs, Verdict

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.data.validation.check import Check


@dataclass(frozen=True)
class Inputs:
    """`faces`: a dataset folder; `expectations`: a folder of expectations of the team's own, which may be missing."""

    faces: Path
    expectations: Path | None = None


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Verdict:
    """Check the dataset and write the verdict, also a negative one.

    Raises UserError where the folder is no dataset, an own expectation is wrong or Data Docs cannot be written;
    StageFailed naming every expectation that failed.
    """
    if runs_on_spark(params.validate_.engine, count_rows(inputs.faces, DATASET_SCHEMA)):
        verdict = _run_on_spark(params, inputs, outputs)
    else:
        frame, checks = prepare(params, inputs)
        verdict = run_checks("validate", checks, frame, outputs.data_docs)
    verdict.conclude(outputs.report)
    return verdict


def _run_on_spark(params: Params, inputs: Inputs, outputs: Outputs) -> Verdict:
    check_spark(inputs.expectations)
    # The columns of a dataset, and those of whose texts only is known that they are there.
    sample = frame_of(pa.Table.from_pylist([{"file_name": "", "prompt": ""}], DATASET_SCHEMA), params.rights)
    checks = dataset_checks(params.validate_, params.rights)

    def frame(context: Any) -> Any:
        return spark_frame(context, inputs.faces, params.rights)

    return run_on_spark(
        "validate",
        checks,
        own=inputs.expectations,
        sample=sample,
        frame=frame,
        cluster=params.preprocess,
        docs=outputs.data_docs,
    )


def prepare(params: Params, inputs: Inputs) -> tuple[pd.DataFrame, list[Check]]:
    """Return the frame (a row per photo, in the order of the dataset) and what is expected of it."""
    frame = dataset_frame(inputs.faces, params.rights)
    checks = dataset_checks(params.validate_, params.rights)
    return frame, [*checks, *own_checks(inputs.expectations, "validate", frame, checks)]
