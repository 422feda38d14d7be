"""validate: Great Expectations on the metadata of a dataset version, before any photo is analysed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.params import Params
from pipelines.data.validation.dataset_frame import dataset_frame
from pipelines.data.validation.dataset_suite import dataset_checks
from pipelines.data.validation.own_checks import own_checks
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
    frame, checks = prepare(params, inputs)
    verdict = run_checks("validate", checks, frame, outputs.data_docs)
    verdict.conclude(outputs.report)
    return verdict


def prepare(params: Params, inputs: Inputs) -> tuple[pd.DataFrame, list[Check]]:
    """Return the frame (a row per photo, in the order of the dataset) and what is expected of it."""
    frame = dataset_frame(inputs.faces, params.rights)
    checks = dataset_checks(params.validate_, params.rights)
    return frame, [*checks, *own_checks(inputs.expectations, "validate", frame, checks)]
