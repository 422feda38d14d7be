"""Asking Great Expectations: an ephemeral context, a frame of metadata, a suite, Data Docs."""

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
from pipelines.data.validation.verdict import Finding, Verdict

if TYPE_CHECKING:
    import pandas as pd

# Data Docs file a result under the time of its run; a fixed one keeps one result a stage, at one place.
_RUN_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\b20\d{6}T\d{6}\.\d{6}Z")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_WEB_PICTURE = re.compile(r"https://great-expectations-web-assets[^\"')\s]*")


def judge(stage: str, checks: Sequence[Check], frame: pd.DataFrame, docs: Path | None) -> Verdict:
    """Return the verdict on `frame` (one row a photo, metadata only), in the order of `checks`.

    With `docs` the Data Docs (`index.html`) are written there, in place of what was there before.
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
            # Counts are enough; examples of offending values would carry people's identities into a report.
            result_format={"result_format": "BASIC", "partial_unexpected_count": 0},
        )
    )
    if docs is not None:
        shutil.rmtree(docs, ignore_errors=True)
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())}
        site = {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": store}
        context.add_data_docs_site(stage, {**site, "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"}})
    outcome = checkpoint.run(
        batch_parameters={"dataframe": frame}, run_id=RunIdentifier(run_name=stage, run_time=_RUN_TIME)
    )
    if docs is not None:
        context.build_data_docs()
        settle_docs(docs)
    (result,) = outcome.run_results.values()
    by_name = {item.expectation_config.meta["name"]: item for item in result.results}
    return Verdict(stage, len(frame), tuple(_finding(check, by_name[check.name]) for check in checks))


def settle_docs(folder: Path) -> None:
    """Take out of Data Docs what changes from build to build, and the web picture by which readers are counted."""
    for page in sorted(folder.rglob("*.html")):
        text = _WEB_PICTURE.sub("data:,", page.read_text(encoding="utf-8"))
        text = _TIME.sub(_RUN_TIME.strftime("%Y%m%dT%H%M%S.%fZ"), text)
        for number, random_name in enumerate(dict.fromkeys(_UUID.findall(text))):
            text = text.replace(random_name, f"part-{number}")
        page.write_text(text, encoding="utf-8")


def _finding(check: Check, result: Any) -> Finding:
    if not result.result:
        raise ValueError(f"expectation {check.name} could not be evaluated: {result.exception_info}")
    if check.allowed is None:
        observed = _number(result.result["observed_value"])
    else:
        looked_at = result.result["element_count"] - result.result.get("missing_count", 0)
        observed = result.result["unexpected_count"] / looked_at if looked_at else 0.0
    return Finding(
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
    """Return a plain number; None where there was nothing to make it of."""
    if value is None or math.isnan(value):
        return None
    return float(value) if isinstance(value, float) else int(value)
