"""A worker's memory depends on the pixels of the largest permitted photo, not on the number of photos."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run

pytestmark = [pytest.mark.realdata, pytest.mark.nightly]

_SIDE = 5000


def measured(project: Path, *arguments: str) -> dict[str, Any]:
    done = run(sys.executable, project / "benchmarks" / "worker_memory.py", *arguments)
    (figures,) = json.loads(done.stdout.splitlines()[-1])
    return figures


@pytest.mark.parametrize("case", ["png_alpha_rotated", "progressive"])
def test_a_big_photo_is_held_once(project: Path, case: str) -> None:
    figures = measured(project, "--side", str(_SIDE), "--cases", case)
    each = (figures["peak_mb"] - figures["ready_mb"]) * 2**20 / _SIDE**2
    print(f"\n{case}: {figures['peak_mb']} MB, {each:.1f} bytes a pixel over {figures['ready_mb']} MB")
    assert figures["outcomes"] == {"ok": 1}
    # Pillow needs four bytes per pixel, or six for the coefficients of a progressive JPEG; the file itself is extra.
    assert each < 7.5


def test_many_small_photos_need_no_more_than_few(project: Path) -> None:
    figures = measured(project, "--small", "64", "--cases", "small")
    assert figures["outcomes"] == {"ok": 64}
    assert figures["peak_mb"] - figures["ready_mb"] < 100
