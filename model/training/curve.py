"""The loss curve of a training: means over a few steps, a smoothed line, and the loss on a fixed probe."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

_SMOOTHING = 0.8


class LossCurve:
    """Losses of single steps, averaged into one row every few steps.

    A row has `step` (steps done), `loss` (mean since the previous row), `smoothed`, the means of all other losses, and
    `probe`, a loss on fixed data; `start` is the probe before the first step, `kept` the step whose weights the adapter
    has, if not the last. `columns` are the other losses in the file; a cell is empty if its loss was not computed.
    """

    def __init__(self, columns: tuple[str, ...] = ()) -> None:
        self.columns = columns
        self.start: float | None = None
        self.kept: int | None = None
        self.rows: list[dict[str, float | None]] = []
        self._pending: dict[str, list[float]] = {}

    @classmethod
    def of_no_step(cls) -> LossCurve:
        """Return the curve of a stage that had nothing to train: step 0, without losses."""
        curve = cls()
        curve.rows.append({"step": 0, **dict.fromkeys(("loss", "smoothed", "probe"))})
        return curve

    def add(self, values: Mapping[str, float]) -> None:
        """Add the losses of one step; `loss` must be among them."""
        for name, value in values.items():
            self._pending.setdefault(name, []).append(float(value))

    def latest(self) -> float:
        """Return the loss of the newest step; at least one must have been added since the last row."""
        return self._pending["loss"][-1]

    def close_row(self, step: int, probe: float | None) -> dict[str, float | None]:
        """Append a row with the means of the losses added since the previous row, and return it."""
        means = {name: float(np.mean(values)) for name, values in self._pending.items()}
        before = self.rows[-1]["smoothed"] if self.rows else None
        smoothed = means["loss"] if before is None else _SMOOTHING * before + (1 - _SMOOTHING) * means["loss"]
        row: dict[str, float | None] = {"step": step, **dict.fromkeys(self.columns), **means}
        row |= {"smoothed": smoothed, "probe": probe}
        self.rows.append(row)
        self._pending = {}
        return row

    def slope(self, column: str = "loss") -> float:
        """Return the slope of a line fitted to a column, per 1,000 steps; 0 with fewer than two values."""
        points = [(row["step"], row[column]) for row in self.rows if row[column] is not None]
        if len(points) < 2:
            return 0.0
        steps, values = np.array(points, np.float64).T
        return float(np.polyfit(steps / 1000, values, 1)[0])

    def state_dict(self) -> dict[str, Any]:
        """Return the curve for a checkpoint."""
        return {"start": self.start, "rows": self.rows, "pending": self._pending}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the curve from a checkpoint."""
        self.start = state["start"]
        self.rows = list(state["rows"])
        self._pending = {name: list(values) for name, values in state["pending"].items()}

    def csv(self) -> str:
        """Return the rows as CSV with six significant digits."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        names = ["step", "loss", "smoothed", *self.columns, "probe"]
        writer.writerow(names)
        for row in self.rows:
            cells = [row[name] for name in names]
            writer.writerow(["" if cell is None else f"{cell:.6g}" for cell in cells])
        return text.getvalue()
