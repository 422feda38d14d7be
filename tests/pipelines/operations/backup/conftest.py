"""A checkout, a folder for stacks with free ports, and the project's commands for both."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.operations.stack.settings import Ports, Stack
from pipelines.operations.stack.supervisor import shut_down
from tests.pipelines.operations.backup.stack_contents import EXPECTED
from tests.pipelines.operations.stacks import open_folder
from tests.processes import dynamicid, free_port, git, run

_CONTENTS = Path(__file__).with_name("stack_contents.py")


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
        """Run a command with the state folder of `stack`; return its stderr."""
        env = {"DYNAMICID_STACK": str(stack.state)}
        return dynamicid(*arguments, cwd=self.checkout, env=env, code=code).stderr

    def contents(self, stack: Stack, action: str, ledger: str) -> None:
        """Fill or read the databases of a stack, and check that they contain everything."""
        env = {**stack.environment(), "PYTHONWARNINGS": "ignore"}
        printed = run(sys.executable, _CONTENTS, action, ledger, cwd=self.folder, env=env).stdout
        assert json.loads(printed.splitlines()[-1]) == EXPECTED


@pytest.fixture(scope="module")
def place(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    checkout = tmp_path_factory.mktemp("checkout")
    git(checkout, "init", "-q", "-b", "main")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "start")
    git(checkout, "tag", "faces-v1")
    with open_folder() as folder, pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("AIRFLOW", "MLFLOW", "PG")):
                patch.delenv(name)
        made = Place(project, checkout, folder, Ports(free_port(), free_port(), free_port()))
        try:
            yield made
        finally:
            for state in folder.iterdir():
                shut_down(made.stack(state.name))
