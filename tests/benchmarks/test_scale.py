"""What grows is measured step by step, and the last line is JSON with the promised figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale import STEPS, column_of, planted
from pipelines.core.row_schemas import PROCESSED_SCHEMA

FIGURES = {"seconds", "processor_seconds", "peak_mb", "seconds_without_start"}


def measured(project: Path, *options: str) -> dict[str, Any]:
    """Run the benchmark; return its last line, which must be the only one on stdout."""
    command = [sys.executable, str(project / "benchmarks" / "scale.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report


def assert_steps(report: dict[str, Any], rows: int, steps: tuple[str, ...]) -> None:
    assert tuple(report) == steps
    for found in report.values():
        assert set(found) == {str(rows // 4), str(rows), "exponent"}
        for count in (rows // 4, rows):
            assert set(found[str(count)]) == FIGURES
            assert found[str(count)]["peak_mb"] > 0
            assert found[str(count)]["seconds"] >= found[str(count)]["seconds_without_start"] >= 0


def test_rows_give_the_figures_of_each_step(project: Path) -> None:
    assert_steps(measured(project, "--rows", "400", "--steps", "drift"), 400, ("drift",))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("engine", "steps"), [("pandas", STEPS), ("spark", ("validate", "validate_processed"))])
def test_every_step_is_measured_on_both_engines(project: Path, engine: str, steps: tuple[str, ...]) -> None:
    options = ("--rows", "2000", "--steps", ",".join(steps), "--set", f"validate.engine={engine}")
    assert_steps(measured(project, *options), 2000, steps)


def test_faces_give_both_ways_and_their_agreement(project: Path) -> None:
    report = measured(project, "--faces", "400", "--dimensions", "64")
    assert set(report) == {"exact", "parts", "agreement_f1", "peak_mb"}
    for way in ("exact", "parts"):
        assert set(report[way]) == {"neighbours_processor_s", "neighbours_s", "grouping_s", "f1"}
        assert report[way]["f1"] > 0.9
    assert report["agreement_f1"] > 0.9


def test_one_in_ten_planted_faces_is_a_stranger() -> None:
    embeddings, known = planted(1000, 32)
    assert embeddings.shape == (1000, 32)
    counts = [list(known).count(person) for person in set(known)]
    assert counts.count(1) >= 100
    assert max(counts) > 10


def test_lists_of_an_array_are_its_rows() -> None:
    import numpy as np

    column = column_of(np.arange(6, dtype=np.float32).reshape(3, 2), PROCESSED_SCHEMA.field("bbox").type)
    assert column.to_pylist() == [[0, 1], [2, 3], [4, 5]]
