"""`benchmarks/serving_load.py` as an operator runs it: 200 requests from 8 clients, then 100 malformed ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]
REQUESTS, CLIENTS, SEEDS, MALFORMED = 200, 8, 10, 100


@pytest.fixture(scope="module")
def found(registered: str, model_folder: Path, project: Path, drawn_people: list[Path]) -> dict[str, Any]:
    """The figures of the command, which starts the server and ends it; the registry is in the environment."""
    command = [sys.executable, project / "benchmarks" / "serving_load.py", "--model", registered]
    for photo in drawn_people:
        command += ["--photo", photo]
    command += ["--requests", str(REQUESTS), "--clients", str(CLIENTS)]
    command += ["--seeds", str(SEEDS), "--malformed", str(MALFORMED)]
    done = subprocess.run(command, cwd=model_folder, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (0 if figures["passed"] else 1), done.stderr[-3000:]
    return figures


def test_two_hundred_requests_of_eight_clients(found: dict[str, Any]) -> None:
    print(
        f"serving: {found['requests']} requests of {found['clients']} clients: errors {found['errors']}, "
        f"pictures {found['pictures']} of {found['seeds']} seeds; {found['per_second']} a second, "
        f"median {found['median_s']} s, slowest {found['slowest_s']} s"
    )
    assert (found["requests"], found["clients"], found["seeds"]) == (REQUESTS, CLIENTS, SEEDS)
    assert found["errors"] == 0, found["first_error"]
    assert found["most_answers_of_one_seed"] == 1
    assert found["pictures"] == SEEDS


def test_a_hundred_malformed_requests_are_refused(found: dict[str, Any]) -> None:
    print(f"serving: {found['malformed']} malformed requests: statuses {found['statuses']}, alive {found['alive']}")
    assert found["not_refused"] == []
    assert sum(found["statuses"].values()) == found["malformed"] == MALFORMED
    assert all(400 <= int(status) < 500 for status in found["statuses"])
    assert found["alive"]
    assert found["passed"], "it draws on afterwards"
