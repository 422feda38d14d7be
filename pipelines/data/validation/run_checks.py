"""Run checks with Great Expectations on a data frame, and build Data Docs."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.privacy import TELEMETRY_OFF
from pipelines.data.validation.check import FAIL, Check
from pipelines.data.validation.verdict import ExpectationResult, Verdict

if TYPE_CHECKING:
    import pandas as pd

# The time of a run is part of its path in Data Docs; a fixed time gives a stage's result the same path in every run.
_RUN_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\b20\d{6}T\d{6}\.\d{6}Z")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_WEB_PICTURE = re.compile(r"https://great-expectations-web-assets[^\"')\s]*")


def run_checks(stage: str, checks: Sequence[Check], frame: pd.DataFrame, docs: Path | None) -> Verdict:
    """Return the verdict on `frame` (one row per photo, metadata only), in the order of `checks`.

    Where `docs` is a folder, Data Docs (`index.html`) are written there and replace its content.
    """
    for key, value in TELEMETRY_OFF.items():
        os.environ.setdefault(key, value)
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.core.run_identifier import RunIdentifier

    context = gx.get_context(mode="ephemeral")
    batch = context.data_sources.add_pandas("photos").add_dataframe_asset(stage)
    suite = gx.ExpectationSuite(
        name=stage,
        expectations=[
            getattr(gxe, check.expectation)(
                **check.arguments,
                severity="critical" if check.severity == FAIL else "warning",
                description=check.description,
                meta={"name": check.name, "parameter": check.parameter},
            )
            for check in checks
        ],
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=stage, data=batch.add_batch_definition_whole_dataframe("all"), suite=context.suites.add(suite)
        )
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=stage,
            validation_definitions=[definition],
            # Counts only: examples of offending values would put people's identities into a report.
            result_format={"result_format": "BASIC", "partial_unexpected_count": 0},
        )
    )
    if docs is not None:
        shutil.rmtree(docs, ignore_errors=True)
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())}
        site = {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": store}
        context.add_data_docs_site(stage, {**site, "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"}})
    run = checkpoint.run(
        batch_parameters={"dataframe": frame}, run_id=RunIdentifier(run_name=stage, run_time=_RUN_TIME)
    )
    if docs is not None:
        context.build_data_docs()
        settle_docs(docs)
    (result,) = run.run_results.values()
    by_name = {item.expectation_config.meta["name"]: item for item in result.results}
    return Verdict(stage, len(frame), tuple(_result(check, by_name[check.name]) for check in checks))


def settle_docs(folder: Path) -> None:
    """Remove from Data Docs what changes from build to build, and the tracking picture."""
    for page in sorted(folder.rglob("*.html")):
        text = _WEB_PICTURE.sub("data:,", page.read_text(encoding="utf-8"))
        text = _TIME.sub(_RUN_TIME.strftime("%Y%m%dT%H%M%S.%fZ"), text)
        for number, random_name in enumerate(dict.fromkeys(_UUID.findall(text))):
            text = text.replace(random_name, f"part-{number}")
        page.write_text(text, encoding="utf-8")


def _result(check: Check, result: Any) -> ExpectationResult:
    if not result.result:
        raise ValueError(f"expectation {check.name} could not be evaluated: {result.exception_info}")
    if check.allowed is None:
        observed = _number(result.result["observed_value"])
    else:
        checked = result.result["element_count"] - result.result.get("missing_count", 0)
        observed = result.result["unexpected_count"] / checked if checked else 0.0
    return ExpectationResult(
        check.name,
        check.expectation,
        check.column,
        bool(result.success),
        round(observed, 6) if isinstance(observed, float) else observed,
        check.bound,
        check.severity,
        check.parameter,
    )


def _number(value: Any) -> float | int | None:
    """Return a Python number; None for null or NaN."""
    if value is None or math.isnan(value):
        return None
    return float(value) if isinstance(value, float) else int(value)
