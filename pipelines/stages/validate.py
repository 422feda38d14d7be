"""validate: Great Expectations on the metadata of a dataset version, before any photo is analysed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.core.params import Params
from pipelines.data.validation.dataset_frame import dataset_frame
from pipelines.data.validation.dataset_suite import dataset_checks
from pipelines.data.validation.run_checks import run_checks
from pipelines.data.validation.verdict import Outputs, Verdict


@dataclass(frozen=True)
class Inputs:
    """`faces`: a dataset folder."""

    faces: Path


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Verdict:
    """Check the dataset and write the verdict, also a negative one.

    Raises UserError where the folder is no dataset; StageFailed naming every expectation that failed.
    """
    frame = dataset_frame(inputs.faces, params.rights)
    verdict = run_checks("validate", dataset_checks(params.validate_, params.rights), frame, outputs.data_docs)
    verdict.conclude(outputs.report)
    return verdict
