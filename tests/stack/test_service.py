"""The command line of the stack where nothing runs, and the end of just the stack's own processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.stack.settings import MARK, Ports, Stack
from pipelines.stack.supervisor import SERVICES, is_running, members, shut_down


@pytest.fixture
def stopped(project: Path, tmp_path: Path) -> Stack:
    """A stack that was started once and does not run."""
    (tmp_path / "ports.json").write_text(json.dumps(vars(Ports())))
    return Stack(project, tmp_path)


def _cli(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "stack", *arguments, "--state", str(stack.state)],
        cwd=stack.root,
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands_say_that_nothing_runs(stopped: Stack) -> None:
    assert not is_running(stopped)
    status = _cli(stopped, "status")
    assert (status.returncode, "`make stack` starts it" in status.stderr) == (1, True)
    unknown = _cli(stopped, "service", "restart", "apache")
    assert unknown.returncode == 2
    assert all(name in unknown.stderr for name in SERVICES)
    assert _cli(stopped, "stop").returncode == 0


def test_only_processes_of_this_stack_are_ended(stopped: Stack, tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    ours = subprocess.Popen(sleep, env={**os.environ, MARK: str(stopped.state)}, start_new_session=True)
    other = subprocess.Popen(sleep, env={**os.environ, MARK: str(tmp_path.parent)}, start_new_session=True)
    try:
        assert members(stopped) == [ours.pid]
        assert shut_down(stopped, seconds=5) == 1
        assert ours.poll() is not None
        assert other.poll() is None
        assert members(stopped) == []
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()
