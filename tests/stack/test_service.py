"""The command line of the stack where nothing runs, and the end of just the stack's own processes."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.stack import postgres as database
from pipelines.stack.settings import MARK, Ports, Stack
from pipelines.stack.supervisor import SERVICES, is_running, left_over, members, shut_down


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


@pytest.fixture
def reachable(project: Path) -> Iterator[Path]:
    """A folder that the user of PostgreSQL can enter, with two states of stacks in it."""
    folder = Path(tempfile.mkdtemp(prefix="dynamicid-stacks-"))
    folder.chmod(0o755)
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "ports.json").write_text(json.dumps(vars(Ports())))
    yield folder
    shutil.rmtree(folder)


def _serve(server: database.Postgres, configuration: Path) -> int:
    """Start PostgreSQL as one that lost its supervisor: nobody's child, no word of the stack in its environment."""
    database.initialise(server, configuration, "secret")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    owner = pwd.getpwnam(server.user)
    place = ["-D", str(server.data), "-l", str(server.data / "log")]
    subprocess.run(
        [str(server.programs / "pg_ctl"), "start", "-w", *place, "-o", f"-p {port} -c unix_socket_directories="],
        env={"LC_ALL": "C.UTF-8", "PGHOST": "127.0.0.1", "PGPORT": str(port)},
        cwd="/",
        stdout=subprocess.DEVNULL,
        user=None if os.getuid() else owner.pw_uid,
        group=None if os.getuid() else owner.pw_gid,
        check=True,
    )
    number = database.postmaster(server.data)
    assert number is not None
    return number


def test_a_database_that_outlived_its_supervisor_is_ended(
    project: Path, reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = project / "docker" / "postgres" / "postgresql.conf"
    monkeypatch.setenv(database.DATA_VARIABLE, str(reachable / "elsewhere"))
    ours = database.choose(reachable / "one")
    monkeypatch.delenv(database.DATA_VARIABLE)  # as in another shell: where the data lies is remembered
    other = database.choose(reachable / "two")
    servers = [_serve(ours, configuration), _serve(other, configuration)]
    stack = Stack(project, reachable / "one")
    try:
        assert (ours.data, database.data_folder(stack.state)) == (reachable / "elsewhere", reachable / "elsewhere")
        assert left_over(stack)
        done = _cli(stack, "stop")
        assert (done.returncode, "1 processes that it had left behind ended" in done.stderr) == (0, True)
        assert "database system is shut down" in (ours.data / "log").read_text(), "a fast shutdown, not a kill"
        assert database.postmaster(other.data) == servers[1]
        assert not left_over(stack)
        assert left_over(Stack(project, reachable / "two"))
    finally:
        for server in (ours, other):
            database.end(server.data)


def test_a_number_that_another_program_has_now_is_not_a_server(stopped: Stack) -> None:
    data = stopped.state / "postgres"
    data.mkdir()
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n")
    assert database.postmaster(data) is None
    assert shut_down(stopped, seconds=5) == 0
