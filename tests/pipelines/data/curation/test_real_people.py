"""Real photos of ten people, names unknown, are sorted into ten people."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.realdata, pytest.mark.nightly]


@pytest.mark.timeout(900)
def test_ten_people_are_found_without_labels(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/curation.py", "--only", "lfw10"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["lfw10"] >= 0.97
