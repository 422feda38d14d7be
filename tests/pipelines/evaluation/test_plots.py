from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.evaluation.intervals import Interval
from pipelines.evaluation.pictures import data_uri, heat
from pipelines.evaluation.plots import forest, loss_curves, read_losses


def test_losses_that_are_not_computed_in_every_step_are_gaps(tmp_path: Path) -> None:
    file = tmp_path / "losses.csv"
    file.write_text("step,loss,probe\n1,0.5,\n2,0.25,0.3\n")
    columns = read_losses(file)
    assert columns["loss"].tolist() == [0.5, 0.25]
    assert np.isnan(columns["probe"][0])
    assert loss_curves({"anchoring": columns}).count("<svg") == 1
    with pytest.raises(UserError, match=r"none\.csv: no such loss curve"):
        read_losses(tmp_path / "none.csv")
    file.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="expected columns step and loss"):
        read_losses(file)


def test_the_same_numbers_give_the_same_drawing() -> None:
    rows = [("id_similarity", Interval(0.1, 0.05, 0.2)), ("clip_t", Interval(-0.1, -0.2, 0.1))]
    first, second = (forest(rows, "model − without gate") for _ in range(2))
    assert first == second
    assert "<dc:date>" not in first


def test_small_pictures_are_kept_exactly_and_large_ones_are_made_smaller() -> None:
    rng = np.random.default_rng(0)
    assert data_uri(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).startswith("data:image/png")
    large = data_uri(rng.integers(0, 255, (512, 512, 3), dtype=np.uint8))
    assert large.startswith("data:image/jpeg")
    assert len(large) < 90_000


def test_the_heat_map_is_bright_where_the_gate_is_open() -> None:
    gate = np.zeros((8, 8), np.float32)
    gate[2, 6] = 0.4
    shown = heat(gate, np.full((64, 64, 3), 90, np.uint8)).astype(int).sum(2)
    assert np.unravel_index(shown.argmax(), shown.shape)[0] // 8 == 2
    assert np.unravel_index(shown.argmax(), shown.shape)[1] // 8 == 6
