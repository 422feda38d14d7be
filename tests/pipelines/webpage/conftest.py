"""`dynamicid app`, started from the command line on random base models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import free_port


@dataclass(frozen=True)
class Page:
    """A page that is being served, the model version that it reports, and its folder."""

    url: str
    model: str
    folder: Path


@pytest.fixture(scope="module")
def page(
    tmp_path_factory: pytest.TempPathFactory,
    random_home: Callable[[Path], Path],
    with_shipped_networks: Callable[[Path], Path],
) -> Iterator[Page]:
    home = with_shipped_networks(random_home(tmp_path_factory.mktemp("page")))
    port = free_port()
    command = [sys.executable, "-m", "pipelines.cli", "app", "--port", str(port)]
    with (home / "app.log").open("w") as log:
        served = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=log, text=True)
    assert served.stdout is not None
    try:
        line = served.stdout.readline()
        assert line, (home / "app.log").read_text()
        printed = json.loads(line)
        yield Page(printed["url"].rstrip("/"), printed["model"], home / ".dynamicid" / "app" / str(port))
    finally:
        served.terminate()
        served.wait(60)
    assert served.returncode == 0
    assert not (home / ".dynamicid" / "app" / str(port)).exists(), "uploads and pictures are removed at the end"
