"""A place for a stack of one's own, with ports that nobody uses, and the project's commands beside it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.operations.stack.settings import Ports, Stack
from pipelines.operations.stack.supervisor import shut_down
from tests.pipelines.operations.backup.stack_contents import EXPECTED

_CONTENTS = Path(__file__).with_name("stack_contents.py")


def _ports() -> Ports:
    probes = [socket.socket() for _ in range(3)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return Ports(*(probe.getsockname()[1] for probe in probes))
    finally:
        for probe in probes:
            probe.close()


@dataclass(frozen=True)
class Place:
    """A checkout with a tag and a saved run, and a folder for its stacks."""

    project: Path
    checkout: Path
    folder: Path
    ports: Ports

    def stack(self, name: str) -> Stack:
        return Stack(self.project, self.folder / name, self.ports)

    def cli(self, stack: Stack, *arguments: str, code: int = 0) -> str:
        """Run a command beside `stack` and return what it tells people."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MLFLOW", "PG"))}
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            cwd=self.checkout,
            env={**env, "DYNAMICID_STACK": str(stack.state)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr[-3000:]
        return done.stderr

    def contents(self, stack: Stack, action: str, ledger: str) -> None:
        """Fill a stack, or look at it: either way everything that the script puts there is there."""
        done = subprocess.run(
            [sys.executable, str(_CONTENTS), action, ledger],
            cwd=self.folder,
            env={**stack.environment(), "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout.splitlines()[-1]) == EXPECTED

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
        return subprocess.run(command, cwd=self.checkout, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def place(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    checkout = tmp_path_factory.mktemp("checkout")
    # Not under pytest's own folder, which the user that PostgreSQL runs as cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="dynamicid-stacks-"))
    folder.chmod(0o755)
    made = Place(project, checkout, folder, _ports())
    made.git("init", "-q", "-b", "main")
    made.git("commit", "-q", "--allow-empty", "-m", "start")
    made.git("tag", "faces-v1")
    try:
        yield made
    finally:
        for state in folder.iterdir():
            shut_down(made.stack(state.name))
        shutil.rmtree(folder)
