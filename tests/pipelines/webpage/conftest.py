"""`dynamicid app`, started from the command line on random base models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import free_port

ACCOUNTS = {"ada": "correct horse battery", "grace": "another long one"}


@dataclass(frozen=True)
class Page:
    """A page that is being served, the model version that it reports, its folder, and its log."""

    url: str
    model: str
    folder: Path
    log: Path


@contextmanager
def served(home: Path, *options: str) -> Iterator[Page]:
    port = free_port()
    command = [sys.executable, "-m", "pipelines.cli", "app", "--port", str(port), *options]
    log = home / f"app-{port}.log"
    with log.open("w") as written:
        served = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=written, text=True)
    assert served.stdout is not None
    folder = home / ".dynamicid" / "app" / str(port)
    try:
        line = served.stdout.readline()
        assert line, log.read_text()
        printed = json.loads(line)
        yield Page(printed["url"].rstrip("/"), printed["model"], folder, log)
    finally:
        served.terminate()
        served.wait(60)
    assert served.returncode == 0
    assert not folder.exists(), "uploads and pictures are removed at the end"
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="session")
def page_home(
    tmp_path_factory: pytest.TempPathFactory,
    random_home: Callable[[Path], Path],
    with_shipped_networks: Callable[[Path], Path],
) -> Path:
    """A folder in which `dynamicid app` finds a model and accounts."""
    home = with_shipped_networks(random_home(tmp_path_factory.mktemp("page")))
    (home / "accounts").write_text("".join(f"{name}:{word}\n" for name, word in ACCOUNTS.items()), encoding="utf-8")
    (home / "accounts").chmod(0o600)
    return home


@pytest.fixture(scope="module")
def page(page_home: Path) -> Iterator[Page]:
    with served(page_home) as page:
        yield page


@pytest.fixture(scope="module")
def page_with_accounts(page_home: Path) -> Iterator[Page]:
    with served(page_home, "--accounts", "accounts") as page:
        yield page
