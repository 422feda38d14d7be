"""`benchmarks/serving_load.py` as an operator runs it: 200 requests from 8 clients, then 100 malformed ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]
REQUESTS, CLIENTS, SEEDS, MALFORMED = 200, 8, 10, 100


def test_two_hundred_requests_of_eight_clients_and_a_hundred_malformed_ones(
    registered: str, model_folder: Path, project: Path, drawn_people: list[Path]
) -> None:
    """The command starts the server and ends it; the registry is in the environment."""
    command = [sys.executable, project / "benchmarks" / "serving_load.py", "--model", registered]
    for photo in drawn_people:
        command += ["--photo", photo]
    command += ["--requests", str(REQUESTS), "--clients", str(CLIENTS)]
    command += ["--seeds", str(SEEDS), "--malformed", str(MALFORMED)]
    done = subprocess.run(command, cwd=model_folder, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"serving: {found}")
    assert found["passed"], done.stderr[-3000:]
    assert done.returncode == 0
    assert (found["requests"], found["clients"], found["seeds"]) == (REQUESTS, CLIENTS, SEEDS)
    assert found["errors"] == 0, found["first_error"]
    assert found["most_answers_of_one_seed"] == 1
    assert found["pictures"] == SEEDS
    assert found["not_refused"] == []
    assert sum(found["statuses"].values()) == found["malformed"] == MALFORMED
    assert all(400 <= int(status) < 500 for status in found["statuses"])
    assert found["alive"]
