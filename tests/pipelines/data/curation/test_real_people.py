"""Group real photos of ten people without their names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.processes import run

pytestmark = [pytest.mark.realdata, pytest.mark.nightly]


@pytest.mark.timeout(900)
def test_ten_people_are_found_without_labels(project: Path) -> None:
    command = (sys.executable, "benchmarks/curation.py", "--only", "lfw10")
    done = run(*command, cwd=project, env={"PYTHONPATH": str(project)})
    assert json.loads(done.stdout.splitlines()[-1])["lfw10"] >= 0.97
