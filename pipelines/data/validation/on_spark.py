"""Run the checks of a stage with Great Expectations on Spark, whose workers read the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.sections.data import Engine, Preprocess
from pipelines.data.spark import reported, spark_context
from pipelines.data.validation.check import Check
from pipelines.data.validation.own_checks import own_checks
from pipelines.data.validation.run_checks import run_checks
from pipelines.data.validation.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

# `auto`: a frame of pandas needs about 1 GB a million rows (docs/log/scaling.md).
ROWS_IN_MEMORY = 2_000_000


def runs_on_spark(engine: Engine, rows: int) -> bool:
    """Return whether so many rows are checked by Spark, by `validate.engine`."""
    return engine == "spark" or (engine == "auto" and rows > ROWS_IN_MEMORY)


def run_on_spark(
    stage: str,
    checks: Sequence[Check],
    *,
    own: Path | None,
    sample: pd.DataFrame,
    frame: Callable[[Any], Any],
    cluster: Preprocess,
    docs: Path | None,
) -> Verdict:
    """Return the verdict of `run_checks` on the DataFrame that `frame` makes with a SparkContext of `cluster`.

    `own`: a folder of expectations of the team's own; `sample`: a frame of pandas with the columns of the other one.
    Raises UserError where an own expectation is wrong.
    """
    every = [*checks, *own_checks(own, stage, sample, checks)]
    with spark_context(cluster.master, f"dynamicid {stage}", cluster.spark) as context, reported(stage):
        return run_checks(stage, every, frame(context), docs)
