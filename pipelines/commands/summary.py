"""`dynamicid summary`: print the metrics of the last evaluation."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from rich import box
from rich.table import Table

from pipelines.commands.options import PAGE_PORT, option
from pipelines.commands.output import emit, json_wanted
from pipelines.core.chain import ADAPTER, METRICS, REPORT
from pipelines.core.errors import UserError
from pipelines.core.screen import say, show
from pipelines.evaluation.belonging import (
    MADE_BY,
    NOT_MEASURABLE,
    check_figures,
    check_report,
    figure_text,
    read_document,
    withheld,
)
from pipelines.evaluation.variants import HEADINGS, MODEL, PAPER_METRICS, PAPER_VARIANTS, SHIPPED, SUMMARISED
from pipelines.registry.model_extras import write_sheet
from pipelines.registry.settings import database, own_uri
from pipelines.versions.older import warn_if_older


def summary(
    metrics: Annotated[Path, option("Metrics file of an evaluation.")] = Path(METRICS),
    report: Annotated[Path, option("HTML report of the evaluation.")] = Path(REPORT),
    sheet: Annotated[Path | None, option("Also write the report's contact sheet as a PNG.", metavar="FILE")] = None,
) -> None:
    """Print the metrics beside the baselines, and the paths of the report and the MLflow database."""
    document = _read(metrics)
    _check_belonging(document, metrics, report)
    if sheet is not None and not (report.is_file() and write_sheet(report, sheet)):
        raise UserError(f"{report}: no report with a contact sheet; `dynamicid repro` makes one")
    rows, file = rows_of(document), database(Path.cwd())
    older = warn_if_older(Path.cwd(), metrics)
    if json_wanted():
        values = {name: {metric: interval["value"] for metric, interval in row.items()} for name, row in rows.items()}
        found = {"metrics": values, "not_measurable": withheld(document), "report": str(report), "mlflow": str(file)}
        found |= {"older_than_data": older} if older else {}
        emit({**found, **({"paper": document["paper"]} if "paper" in document else {})})
        return
    show(_table(rows), whole=True)
    if "paper" in document:
        show(_paper_table(document["paper"]), whole=True)
    for metric, reason in withheld(document).items():
        say(f"{metric}: {NOT_MEASURABLE} ({reason})")
    command = f"mlflow ui --backend-store-uri {shlex.quote(own_uri(Path.cwd()))}"
    for line in (
        f"report: {report}",
        f"contact sheet: {report}#sheet",
        f"MLflow database: {file}  ({command})",
        f"page: `dynamicid app`, then http://127.0.0.1:{PAGE_PORT}",
    ):
        say(line)


def rows_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the intervals by variant and metric; s, the similarity scaled from floor to ceiling, comes first."""
    scaled = document["normalised"]
    return {
        variant: {**({"s": scaled[variant]["id_similarity"]} if variant in scaled else {}), **document[variant]}
        for variant in shown_in(document)
    }


def shown_in(document: dict[str, Any]) -> list[str]:
    """Return the variants of the table: the shipped adapter, where it was evaluated, beside the model."""
    shown = [variant for variant in SUMMARISED if variant in document]
    if SHIPPED in document:
        shown.insert(shown.index(MODEL) + 1, SHIPPED)
    return shown


def _check_belonging(document: dict[str, Any], metrics: Path, report: Path) -> None:
    """Raise StageFailed where the report is not of these metrics, or those of the chain are of another adapter."""
    if MADE_BY in document and report.is_file():
        check_report(report, metrics)
    if metrics == Path(METRICS) and (Path(ADAPTER) / "config.json").is_file():
        check_figures(document, metrics, Path(ADAPTER))


def _read(metrics: Path) -> dict[str, Any]:
    from model.network.methods import DYNAMICID, METHODS
    from pipelines.evaluation.plan import variants_of

    document = read_document(metrics)
    method = METHODS.get(document.get(MADE_BY, {}).get("method"), DYNAMICID)
    lacking = set(variants_of(DYNAMICID)) - set(variants_of(method))
    expected = [*(variant for variant in SUMMARISED if variant not in lacking), "normalised"]
    missing = [key for key in expected if not isinstance(document.get(key), dict)]
    if missing:
        raise UserError(f"{metrics}: {', '.join(missing)} missing; expected the metrics of the stage evaluate")
    return document


def _table(rows: dict[str, dict[str, Any]]) -> Table:
    table = Table(
        title="held-out people, judged by networks that the model was not conditioned on", box=box.SIMPLE_HEAD
    )
    table.add_column("metric", no_wrap=True)
    for variant in rows:
        table.add_column(HEADINGS[variant].replace(" ", "\n"), justify="right")
        if variant == "model":
            table.add_column("95 %", justify="right")
    for metric in rows["model"]:
        cells = []
        for variant, row in rows.items():
            interval = row.get(metric)
            cells.append("" if interval is None else figure_text(interval))
            if interval is not None and variant == "model":
                known = interval["value"] is not None
                cells.append(f"{interval['low']:.2f} … {interval['high']:.2f}" if known else "")
        table.add_row(metric, *cells)
    return table


def _paper_table(paper: dict[str, Any]) -> Table:
    table = Table(title="the paper's questions, by its metrics", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for metric in PAPER_METRICS:
        table.add_column(metric, justify="right")
    for variant in PAPER_VARIANTS:
        table.add_row(HEADINGS[variant], *(figure_text(paper[variant][metric]) for metric in PAPER_METRICS))
    return table
