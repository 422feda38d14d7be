"""The report's plots as SVG; equal numbers give equal bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.errors import UserError
from pipelines.evaluation.intervals import Interval

_INK = "#1f2933"
_COLOURS = ("#2563a8", "#c2552d", "#3d8b57", "#7a5aa6")
# Without a fixed salt the ids inside an SVG are random.
STYLE = {"svg.hashsalt": "dynamicid", "svg.fonttype": "path", "font.size": 9, "axes.edgecolor": "#9aa5b1"}


def svg(figure: Any) -> str:
    """Return a matplotlib figure as SVG; call it within `STYLE`."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    return text.getvalue()


@contextmanager
def _styled_figure(width: float, height: float) -> Iterator[Any]:
    """Yield a figure of `width` × `height` inches; draw and save it within the context."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        yield Figure(figsize=(width, height))


def _axes(figure: Any, *position: int) -> Any:
    axes = figure.add_subplot(*(position or (1, 1, 1)))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8)
    return axes


def read_losses(file: Path) -> dict[str, np.ndarray]:
    """Read the columns `step,loss,…` of a CSV; raise UserError where the file is missing or has other columns.

    An empty field (a loss that is not computed in every step) is NaN.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such loss curve; the training stage writes it")
    with file.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or "step" not in rows[0] or "loss" not in rows[0]:
        raise UserError(f"{file}: expected columns step and loss and at least one row")
    return {key: np.array([float(row[key]) if row[key] else np.nan for row in rows]) for key in rows[0]}


def loss_curves(curves: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Draw each stage's loss over its steps, with the columns `smoothed` and `probe` where they exist.

    The probe is the loss on fixed pictures, noise and timesteps.
    """
    with _styled_figure(4.6 * len(curves), 2.6) as figure:
        for place, (name, columns) in enumerate(curves.items(), 1):
            axes = _axes(figure, 1, len(curves), place)
            axes.plot(columns["step"], columns["loss"], color=_COLOURS[0], alpha=0.3, linewidth=0.8)
            for column, colour in (("smoothed", _COLOURS[0]), ("probe", _COLOURS[1])):
                if column in columns:
                    shown = ~np.isnan(columns[column])
                    axes.plot(columns["step"][shown], columns[column][shown], color=colour, linewidth=1.8, label=column)
            axes.set_title(name, fontsize=9, color=_INK)
            axes.set_xlabel("step")
            axes.set_ylabel("loss")
            if axes.get_legend_handles_labels()[1]:
                axes.legend(frameon=False, fontsize=8)
            if (columns["loss"] > 0).all():
                axes.set_yscale("log")
        figure.tight_layout()
        return svg(figure)


def forest(rows: Sequence[tuple[str, Interval]], title: str) -> str:
    """Draw differences with their intervals, one per line, and a line at zero."""
    with _styled_figure(6.4, 0.5 + 0.24 * len(rows)) as figure:
        axes = _axes(figure)
        axes.axvline(0, color="#9aa5b1", linewidth=1)
        for place, (_, interval) in enumerate(rows):
            colour = _COLOURS[0] if interval.sign > 0 else _COLOURS[1] if interval.sign < 0 else "#7b8794"
            axes.plot([interval.low, interval.high], [-place, -place], color=colour, linewidth=2)
            axes.plot([interval.value], [-place], "o", color=colour, markersize=4.5)
        axes.set_yticks([-place for place in range(len(rows))], [label for label, _ in rows])
        axes.set_title(title, fontsize=9, color=_INK, loc="left")
        return svg(figure)


def sweep_plot(sweeps: Mapping[tuple[str, float], Mapping[str, Interval]], titles: Mapping[str, str]) -> str:
    """Draw identity against prompt accuracy for each swept parameter, every point labelled with its value."""
    names = list(dict.fromkeys(name for name, _ in sweeps))
    with _styled_figure(3.6 * len(names), 3.0) as figure:
        for place, name in enumerate(names, 1):
            axes = _axes(figure, 1, len(names), place)
            points = [(value, row) for (swept, value), row in sweeps.items() if swept == name]
            x = [row["prompt_accuracy"].value for _, row in points]
            y = [row["id_similarity"].value for _, row in points]
            axes.plot(x, y, "-o", color=_COLOURS[(place - 1) % len(_COLOURS)], markersize=4)
            for (value, _), a, b in zip(points, x, y, strict=True):
                axes.annotate(f"{value:g}", (a, b), textcoords="offset points", xytext=(4, 4), fontsize=8)
            axes.set_title(titles.get(name, name), fontsize=9, color=_INK)
            axes.set_xlabel("prompt_accuracy")
            axes.set_ylabel("id_similarity")
        figure.tight_layout()
        return svg(figure)
