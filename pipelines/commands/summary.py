"""`dynamicid summary`: what the last evaluation found, and where to look further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pipelines.commands.options import option
from pipelines.commands.output import emit, json_wanted
from pipelines.core.chain import METRICS, REPORT
from pipelines.core.errors import UserError
from pipelines.evaluation.variants import HEADINGS, SUMMARISED

_WIDTH = 110


def summary(
    metrics: Annotated[Path, option("The numbers of an evaluation.")] = Path(METRICS),
    report: Annotated[Path, option("The page with its pictures.")] = Path(REPORT),
) -> None:
    """Print the metrics against the baselines, and the paths of the report and the MLflow database."""
    from pipelines.registry.settings import database

    document = _read(metrics)
    ledger = database(Path.cwd())
    if json_wanted():
        values = {
            variant: {metric: interval["value"] for metric, interval in row.items()}
            for variant, row in rows_of(document).items()
        }
        emit({"metrics": values, "report": str(report), "mlflow": str(ledger)})
        return
    from rich.console import Console

    console = Console(stderr=True)
    console.width = max(console.width, _WIDTH)  # a log file says 80 columns, which would cut the numbers off
    console.print(_table(document))
    console.print(f"report: {report}", soft_wrap=True)
    console.print(f"MLflow database: {ledger}  (mlflow ui --backend-store-uri sqlite:///{ledger})", soft_wrap=True)


def rows_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the intervals by variant and metric, with s (the similarity on the scale from floor to ceiling) first."""
    scaled = document["normalised"]
    return {
        variant: {**({"s": scaled[variant]["id_similarity"]} if variant in scaled else {}), **document[variant]}
        for variant in SUMMARISED
    }


def _read(metrics: Path) -> dict[str, Any]:
    if not metrics.is_file():
        raise UserError(f"{metrics}: no such file; `dynamicid repro` runs the stages up to evaluate, which writes it")
    document = json.loads(metrics.read_text(encoding="utf-8"))
    missing = [key for key in (*SUMMARISED, "normalised") if key not in document]
    if missing:
        raise UserError(f"{metrics}: {', '.join(missing)} missing; expected the metrics of the stage evaluate")
    return document


def _table(document: dict[str, Any]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(
        title="held-out people; their faces are judged by networks that conditioned nothing", box=box.SIMPLE_HEAD
    )
    table.add_column("metric", no_wrap=True)
    for variant in SUMMARISED:
        table.add_column(HEADINGS[variant], justify="right")
        if variant == "model":
            table.add_column("95 %", justify="right", no_wrap=True)
    rows = rows_of(document)
    for metric in rows["model"]:
        cells = []
        for variant in SUMMARISED:
            interval = rows[variant].get(metric)
            cells.append("" if interval is None else f"{interval['value']:.3f}")
            if interval is not None and variant == "model":
                cells.append(f"{interval['low']:.2f} … {interval['high']:.2f}")
        table.add_row(metric, *cells)
    return table
