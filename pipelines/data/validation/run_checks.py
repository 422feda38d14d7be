"""Run checks with Great Expectations on a data frame, of pandas or of Spark."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import UserError
from pipelines.core.privacy import TELEMETRY_OFF
from pipelines.data.validation.check import FAIL, Check
from pipelines.data.validation.data_docs import docs_folder, shown_of, write_docs
from pipelines.data.validation.own_checks import describe_faults
from pipelines.data.validation.verdict import ExpectationResult, Verdict

if TYPE_CHECKING:
    import pandas as pd

# Counts only: examples of offending values would put people's identities into a report.
_COUNTS = {"result_format": "BASIC", "partial_unexpected_count": 0}


def run_checks(stage: str, checks: Sequence[Check], frame: Any, docs: Path | None) -> Verdict:
    """Return the verdict on `frame` (one row per photo, metadata only), in the order of `checks`.

    `frame` is one of pandas, or one of Spark without NaN, which Spark would not take for null.

    Where `docs` is a folder, Data Docs (`index.html`) are written there and replace its content. Raises UserError where
    they cannot be, or where a team's own check cannot be evaluated.
    """
    import pandas as pd

    in_memory = isinstance(frame, pd.DataFrame)
    gx, context, batch = _context(stage, on_spark=not in_memory)
    suite = gx.ExpectationSuite(name=stage, expectations=[_expectation(check) for check in checks])
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=stage, data=batch, suite=context.suites.add(suite))
    )
    with docs_folder(docs) as folder:
        run = definition.run(
            batch_parameters={"dataframe": frame}, result_format=_COUNTS, run_id=gx.RunIdentifier(run_name=stage)
        )
        by_name = {item.expectation_config.meta["name"]: item for item in run.results}
        verdict = Verdict(
            stage,
            len(frame) if in_memory else frame.count(),
            tuple(_result(check, by_name[check.name]) for check in checks),
        )
        if docs is not None:
            write_docs(context, verdict, folder, docs)
    return verdict


def failing_rows(stage: str, check: Check, frame: pd.DataFrame) -> list[int]:
    """Return the positions of the rows of `frame` that violate a check on each value, ascending.

    Raises UserError where the check is one of the whole table.
    """
    _, _, batch = _context(stage)
    result = batch.get_batch(batch_parameters={"dataframe": frame}).validate(
        _expectation(check), result_format="COMPLETE"
    )
    if "element_count" not in result.result:
        raise UserError(f"{check.name}: is about the whole table, so that no single row fails it")
    return sorted(result.result.get("unexpected_index_list") or [])


def _context(stage: str, *, on_spark: bool = False) -> tuple[Any, Any, Any]:
    """Return Great Expectations, a context in memory and a definition of batches that are whole data frames."""
    for key, value in TELEMETRY_OFF.items():
        os.environ.setdefault(key, value)
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    sources = context.data_sources
    source = sources.add_spark("photos") if on_spark else sources.add_pandas("photos")
    return gx, context, source.add_dataframe_asset(stage).add_batch_definition_whole_dataframe("all")


def _expectation(check: Check) -> Any:
    import great_expectations.expectations as gxe

    made = check.expectation if isinstance(check.expectation, type) else getattr(gxe, check.expectation)
    meta = {"name": check.name, "severity": check.severity, "shown": shown_of(check)}
    severity = "critical" if check.severity == FAIL else "warning"
    try:
        return made(**check.arguments, severity=severity, notes=check.protects, meta=meta)
    except ValueError as error:  # of pydantic: an argument that the class does not know, or of another type
        if check.origin is None:
            raise
        raise UserError(describe_faults(check, error)) from None


def _result(check: Check, result: Any) -> ExpectationResult:
    if not result.result:
        problem = f"expectation {check.name} could not be evaluated: {_reason(result.exception_info)}"
        raise ValueError(problem) if check.origin is None else UserError(f"{check.origin}: {problem}")
    observed: float | int | None
    if "element_count" in result.result:
        checked = result.result["element_count"] - (result.result.get("missing_count") or 0)
        observed = result.result["unexpected_count"] / checked if checked else 0.0
    else:
        observed = _number(result.result.get("observed_value"))
    expectation = check.expectation if isinstance(check.expectation, str) else check.expectation.__name__
    return ExpectationResult(
        check.name,
        expectation,
        check.column,
        bool(result.success),
        round(observed, 6) if isinstance(observed, float) else observed,
        check.bound,
        check.severity,
        check.parameter,
    )


def _reason(raised: Any) -> str:
    """Return the message of an exception that Great Expectations caught, in one line."""
    infos = [raised] if "exception_message" in raised else list(raised.values())
    return " ".join(str(infos[0].get("exception_message") if infos else "no result").split())


def _number(value: Any) -> float | int | None:
    """Return a Python number; None for null, NaN, or anything that is no number."""
    if not isinstance(value, int | float) and not hasattr(value, "dtype"):
        return None
    return None if math.isnan(value) else float(value) if isinstance(value, float) else int(value)
