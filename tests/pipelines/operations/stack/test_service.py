"""The command line of the stack where nothing runs, and the end of just the stack's own processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.operations.stack import postgres as database
from pipelines.operations.stack.settings import MARK, Ports, Stack, keep_ports
from pipelines.operations.stack.supervisor import (
    SERVICES,
    alone,
    is_running,
    left_over,
    members,
    shut_down,
    unreachable,
)
from tests.pipelines.operations.stacks import bring_up, needs_postgres, open_folder
from tests.processes import dynamicid, free_port, wait_until


@pytest.fixture
def stopped(project: Path, tmp_path: Path) -> Stack:
    """A stack that was started once and does not run."""
    stack = Stack(project, tmp_path)
    keep_ports(stack)
    return stack


def _cli(stack: Stack, *arguments: str, code: int = 0) -> str:
    return dynamicid("stack", *arguments, "--state", stack.state, cwd=stack.root, code=code).stderr


def test_commands_say_that_nothing_runs(stopped: Stack) -> None:
    assert not is_running(stopped)
    assert "`make stack` starts it" in _cli(stopped, "status", code=1)
    unknown = _cli(stopped, "service", "restart", "apache", code=2)
    assert all(name in unknown for name in SERVICES)
    _cli(stopped, "stop")


def test_only_processes_of_this_stack_are_ended(stopped: Stack, tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    ours = subprocess.Popen(sleep, env={**os.environ, MARK: str(stopped.state)}, start_new_session=True)
    other = subprocess.Popen(sleep, env={**os.environ, MARK: str(tmp_path.parent)}, start_new_session=True)
    try:
        assert [one.pid for one in members(stopped)] == [ours.pid]
        assert shut_down(stopped, seconds=5) == 1
        assert ours.poll() is not None
        assert other.poll() is None
        assert members(stopped) == []
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


@pytest.fixture
def reachable() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture
def supervised(project: Path, reachable: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Stack, Stack]]:
    """Two stacks with their supervisors, of whose services only the databases run: one elsewhere, one in its state."""
    first, second = (Stack(project, reachable / name, Ports(postgres=free_port())) for name in ("one", "two"))
    monkeypatch.setenv(database.DATA_VARIABLE, str(reachable / "elsewhere" / "one"))
    bring_up(first)
    monkeypatch.delenv(database.DATA_VARIABLE)  # as in another shell: where the data lies is remembered
    bring_up(second)
    yield first, second
    for stack in (first, second):
        shut_down(stack)


def _database_pid(stack: Stack) -> int:
    return int((database.data_folder(stack.state) / "postmaster.pid").read_text().splitlines()[0])


def _supervisor_pid(stack: Stack) -> int:
    return int((stack.state / "supervisord.pid").read_text())


@needs_postgres
@pytest.mark.nightly
def test_what_a_killed_supervisor_left_is_ended_and_nothing_else(supervised: tuple[Stack, Stack]) -> None:
    stack, other = supervised
    assert database.data_folder(stack.state).parts[-2:] == ("elsewhere", "one")
    assert database.data_folder(other.state) == other.state / "postgres"
    served = _database_pid(stack)
    assert not database.orphan(database.data_folder(stack.state)), "it has a supervisor"
    os.kill(_supervisor_pid(stack), signal.SIGKILL)
    wait_until(lambda: database.orphan(database.data_folder(stack.state)) == served, 30, "it has a supervisor")
    assert (is_running(stack), unreachable(stack), left_over(stack)) == (False, None, True)
    assert "1 processes that it had left behind ended" in _cli(stack, "stop")
    log = database.data_folder(stack.state) / "postmaster.pid"
    assert not log.exists(), "a fast shutdown takes its file away, a kill does not"
    assert not left_over(stack)
    assert is_running(other)
    assert _database_pid(other)


@needs_postgres
@pytest.mark.nightly
def test_a_supervisor_without_its_socket_is_not_taken_for_a_dead_one(
    supervised: tuple[Stack, Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, other = supervised
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert is_running(stack), "another shell may have another TMPDIR"
    supervisor, served = _supervisor_pid(stack), _database_pid(stack)
    stack.socket.unlink()
    assert (is_running(stack), unreachable(stack)) == (False, supervisor)
    assert f"process {supervisor}" in _cli(stack, "start", code=1)
    assert _database_pid(stack) == served, "nothing was ended"
    _cli(stack, "stop")
    assert not left_over(stack)
    assert is_running(other)


@needs_postgres
@pytest.mark.nightly
def test_a_running_stack_is_not_started_on_other_ports_nor_by_two(supervised: tuple[Stack, Stack]) -> None:
    stack, _ = supervised
    assert "runs on other ports" in _cli(stack, "start", "--airflow-port=18081", code=2)
    with alone(stack):
        assert "started or ended already" in _cli(stack, "stop", code=1)
    assert is_running(stack)


def test_a_process_that_renames_itself_keeps_its_mark(stopped: Stack) -> None:
    """As Airflow's do."""
    rename = "import setproctitle, sys, time; setproctitle.setproctitle('airflow api_server'); print(flush=True); "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{rename}time.sleep(600)"],
        env=stopped.environment(),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"airflow api_server")
        assert [one.pid for one in members(stopped)] == [process.pid]
    finally:
        process.kill()
        process.communicate()


def test_a_number_that_another_program_has_now_is_not_a_server(stopped: Stack) -> None:
    data = stopped.state / "postgres"
    data.mkdir()
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n")
    assert database.orphan(data) is None
    assert shut_down(stopped, seconds=5) == 0


@needs_postgres
def test_the_data_is_where_it_was_and_nobody_elses_folder_is_taken(
    reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, elsewhere = reachable / "one", reachable / "elsewhere"
    state.mkdir()
    monkeypatch.setenv(database.DATA_VARIABLE, str(reachable))
    with pytest.raises(UserError, match="neither empty nor a data folder of PostgreSQL"):
        database.choose(state)
    assert reachable.stat().st_mode & 0o777 == 0o755
    database.remember(state, database.Postgres(Path("bin"), "me", elsewhere))
    monkeypatch.delenv(database.DATA_VARIABLE)
    with pytest.raises(UserError, match=r"elsewhere: the databases of this stack were there and are gone"):
        database.choose(state)
    database.remember(state, database.Postgres(Path("bin"), "me", state / "postgres"))
    moved = state.rename(reachable / "moved")
    assert database.choose(moved).data == moved / "postgres"
    (moved / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(UserError, match=r"PostgreSQL 9.6, which made the data, is missing .* postgresql-9.6"):
        database.choose(moved)
