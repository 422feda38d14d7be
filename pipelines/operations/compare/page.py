"""The results of a comparison as files: a page, a table for LaTeX, and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.pages import render_page
from pipelines.core.paths import project_root
from pipelines.evaluation.belonging import NOT_MEASURABLE, metrics_mark
from pipelines.evaluation.intervals import Interval
from pipelines.evaluation.pictures import svg_uri
from pipelines.evaluation.plots import forest
from pipelines.operations.compare.figures import Figures
from pipelines.operations.compare.plan import Row
from pipelines.operations.compare.tables import Costs, cost_rows, latex, metric_rows

PAGE, TABLE, DOCUMENT = "index.html", "table.tex", "comparison.json"
_FORMAT = 1
# Degrees are on another scale than shares and cosines.
_APART = ("yaw_mae",)


@dataclass(frozen=True)
class CellResult:
    """What became of one cell: its row and seed, adapter folder, report (below the page), run in MLflow and cost."""

    row: Row
    seed: int | None
    document: Mapping[str, Any]
    adapter: str | None = None
    report: str | None = None
    run: str | None = None
    cost: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The cell in words, and, with plain characters, in names of files."""
        return self.row.name if self.seed is None else f"{self.row.name}, seed {self.seed}"


def file_name(text: str) -> str:
    """Return a name of a row or cell as a name of a file."""
    return re.sub(r"[^A-Za-z0-9.=]+", "-", text).strip("-")


@dataclass(frozen=True)
class Comparison:
    """All results: the rows, their cells, figures, and rows of pictures with a tile of every row's first cell."""

    rows: Sequence[Row]
    cells: Sequence[CellResult]
    figures: Figures
    pictures: Sequence[Mapping[str, Any]]
    people: int

    @property
    def names(self) -> list[str]:
        """The names of the rows."""
        return [row.name for row in self.rows]

    @property
    def costs(self) -> Costs:
        """The cost of every training, by row."""
        return {row.name: [cell.cost for cell in self.cells if cell.row is row and cell.cost] for row in self.rows}

    @property
    def budget(self) -> str:
        """The budget of the trainings in words; empty where nothing was trained."""
        trained = [row for row in self.rows if row.method is not None]
        if not trained:
            return ""
        steps = sorted({row.params.train_anchoring.steps for row in trained})
        batches = sorted({row.params.train_anchoring.batch_size for row in trained})
        starts = {row.params.train_anchoring.start_from for row in trained}
        imr = sorted({row.params.train_imr.steps for row in trained if row.method and row.method.motion})
        more = f"; then {_listed(imr)} steps of the IMR, where the method has one" if imr else ""
        start = "new weights" if starts == {None} else "the adapters that train_anchoring.start_from names"
        return f"Trained from {start}: {_listed(steps)} steps of {_listed(batches)} photos{more}."

    def document(self) -> dict[str, Any]:
        """Return the contents of `comparison.json`."""
        first = self.cells[0].document
        return {
            "format": _FORMAT,
            "reference": self.names[0],
            "evaluation_set": first["evaluation_set"],
            "people": self.people,
            "settings": {key: value for key, value in first["settings"].items() if key not in ("adapter", "pictures")},
            "budget": self.budget,
            "rows": [self._row(row) for row in self.rows],
        }

    def text(self) -> str:
        """Return `comparison.json`."""
        return json.dumps(self.document(), indent=1, ensure_ascii=False) + "\n"

    def _row(self, row: Row) -> dict[str, Any]:
        differences = self.figures.differences.get(row.name, {})
        shown = ("seed", "adapter", "report", "run", "cost")
        return {
            "name": row.name,
            "method": None if row.method is None else row.method.name,
            "changes": list(row.changes),
            "metrics": {name: figure.plain() for name, figure in self.figures.values[row.name].items()},
            "differences": {name: {**one.plain(), "sign": one.sign} for name, one in differences.items()},
            "cells": [{key: getattr(cell, key) for key in shown} for cell in self.cells if cell.row is row],
        }

    def page(self) -> str:
        """Return the page as HTML, with all pictures in it."""
        first = self.cells[0].document
        rows = metric_rows(self.figures, {row.name: not row.is_text_only for row in self.rows})
        unmeasured = {
            row["metric"]: cell["reason"]
            for row in rows
            for cell in row["cells"]
            if cell and cell["value"] == NOT_MEASURABLE
        }
        seeds = {len(row.seeds) for row in self.rows if row.method is not None}
        return render_page(
            Path(__file__).with_name("compare.html.j2"),
            project_root() / "pipelines" / "evaluation",
            mark=metrics_mark(self.text().encode()),
            people=self.people,
            settings=first["settings"],
            evaluation_set=first["evaluation_set"],
            budget=self.budget,
            names=self.names,
            one_seed=1 in seeds or not seeds,
            several_seeds=max(seeds, default=1) > 1,
            rows=rows,
            unmeasured=unmeasured,
            costs=cost_rows(self.costs, self.names),
            forests=[svg_uri(plot) for plot in self._forests()],
            pictures=self.pictures,
            cells=[
                {
                    "row": cell.row.name,
                    "seed": cell.seed,
                    "changes": cell.row.changes,
                    **{key: getattr(cell, key) for key in ("adapter", "report", "run")},
                }
                for cell in self.cells
            ],
        )

    def table(self) -> str:
        """Return the table of the headline in LaTeX."""
        return latex(self.figures, cost_rows(self.costs, self.names), f"Comparison on {self.people} held-out people.")

    def _forests(self) -> list[str]:
        found: list[str] = []
        for name, differences in self.figures.differences.items():
            rows: list[tuple[str, Interval]] = [
                (metric, one.interval)
                for metric, one in differences.items()
                if metric not in _APART and one.interval is not None
            ]
            if rows:
                found.append(forest(rows, f"{name} − {self.names[0]}"))
        return found


def _listed(numbers: Sequence[int]) -> str:
    return " or ".join(f"{number:,}" for number in numbers)
