"""Commands for a stopped stack, and ending exactly this stack's processes."""

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
from pipelines.operations.stack.settings import STATE_VARIABLE, Ports, Stack, save_ports
from pipelines.operations.stack.start import start_database
from pipelines.operations.stack.supervisor import (
    SERVICES,
    has_processes,
    is_running,
    lock_stack,
    shut_down,
    stack_processes,
    unresponsive_supervisor,
)
from tests.pipelines.operations.stacks import needs_postgres, open_folder
from tests.processes import dynamicid, free_port, wait_until


@pytest.fixture
def stopped(project: Path, tmp_path: Path) -> Stack:
    """A stack that was started once and does not run."""
    stack = Stack(project, tmp_path)
    save_ports(stack)
    return stack


def _cli(stack: Stack, *arguments: str, code: int = 0) -> str:
    return dynamicid("stack", *arguments, "--state", stack.state, cwd=stack.root, code=code).stderr


def test_commands_report_that_nothing_runs(stopped: Stack) -> None:
    assert not is_running(stopped)
    assert "`make stack` starts it" in _cli(stopped, "status", code=1)
    unknown = _cli(stopped, "service", "restart", "apache", code=2)
    assert all(name in unknown for name in SERVICES)
    _cli(stopped, "stop")


def test_only_processes_of_this_stack_are_ended(stopped: Stack, tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    ours, other = (
        subprocess.Popen(
            sleep, env={**os.environ, STATE_VARIABLE: str(state)}, start_new_session=True, stdout=subprocess.PIPE
        )
        for state in (stopped.state, tmp_path.parent)
    )
    try:
        for process in (ours, other):
            assert process.stdout is not None
            process.stdout.readline()  # its environment is readable from now on
        assert [one.pid for one in stack_processes(stopped)] == [ours.pid]
        assert shut_down(stopped, seconds=5) == 1
        assert ours.poll() is not None
        assert other.poll() is None
        assert stack_processes(stopped) == []
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
    """Two stacks of which only PostgreSQL runs: one has its data elsewhere, one in its state folder."""
    first, second = (Stack(project, reachable / name, Ports(postgres=free_port())) for name in ("one", "two"))
    monkeypatch.setenv(database.DATA_VARIABLE, str(reachable / "elsewhere" / "one"))
    start_database(first, print)
    monkeypatch.delenv(database.DATA_VARIABLE)  # as in another shell: the data folder was saved
    start_database(second, print)
    yield first, second
    for stack in (first, second):
        shut_down(stack)


def _database_pid(stack: Stack) -> int:
    return int((database.data_folder(stack.state) / "postmaster.pid").read_text().splitlines()[0])


def _supervisor_pid(stack: Stack) -> int:
    return int((stack.state / "supervisord.pid").read_text())


@needs_postgres
@pytest.mark.nightly
def test_only_the_processes_of_a_killed_supervisor_are_ended(supervised: tuple[Stack, Stack]) -> None:
    stack, other = supervised
    assert database.data_folder(stack.state).parts[-2:] == ("elsewhere", "one")
    assert database.data_folder(other.state) == other.state / "postgres"
    served = _database_pid(stack)
    assert not database.orphan_pid(database.data_folder(stack.state)), "it has a supervisor"
    os.kill(_supervisor_pid(stack), signal.SIGKILL)
    wait_until(lambda: database.orphan_pid(database.data_folder(stack.state)) == served, 30, "it has a supervisor")
    assert (is_running(stack), unresponsive_supervisor(stack), has_processes(stack)) == (False, None, True)
    assert "ended 1 process that it had left behind" in _cli(stack, "stop")
    pid_file = database.data_folder(stack.state) / "postmaster.pid"
    assert not pid_file.exists(), "a fast shutdown removes its file, a kill does not"
    assert not has_processes(stack)
    assert is_running(other)
    assert _database_pid(other)


@needs_postgres
@pytest.mark.nightly
def test_a_supervisor_without_its_socket_still_counts_as_running(
    supervised: tuple[Stack, Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, other = supervised
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert is_running(stack), "another shell may have another TMPDIR"
    supervisor, served = _supervisor_pid(stack), _database_pid(stack)
    stack.socket.unlink()
    assert (is_running(stack), unresponsive_supervisor(stack)) == (False, supervisor)
    assert f"process {supervisor}" in _cli(stack, "start", code=1)
    assert _database_pid(stack) == served, "nothing was ended"
    _cli(stack, "stop")
    assert not has_processes(stack)
    assert is_running(other)


@needs_postgres
@pytest.mark.nightly
def test_a_running_stack_is_not_started_on_other_ports_nor_twice(supervised: tuple[Stack, Stack]) -> None:
    stack, _ = supervised
    assert "runs on other ports" in _cli(stack, "start", "--airflow-port=18081", code=2)
    with lock_stack(stack):
        assert "started or ended already" in _cli(stack, "stop", code=1)
    assert is_running(stack)


def test_a_process_that_renames_itself_as_airflow_does_is_found(stopped: Stack) -> None:
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
        assert [one.pid for one in stack_processes(stopped)] == [process.pid]
    finally:
        process.kill()
        process.communicate()


def test_a_process_id_of_another_program_is_not_a_server(stopped: Stack) -> None:
    data = stopped.state / "postgres"
    data.mkdir()
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n")
    assert database.orphan_pid(data) is None
    assert shut_down(stopped, seconds=5) == 0


@needs_postgres
def test_the_data_folder_is_found_again_and_other_folders_are_refused(
    reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, elsewhere = reachable / "one", reachable / "elsewhere"
    state.mkdir()
    monkeypatch.setenv(database.DATA_VARIABLE, str(reachable))
    with pytest.raises(UserError, match="neither empty nor a data folder of PostgreSQL"):
        database.configure(state)
    assert reachable.stat().st_mode & 0o777 == 0o755
    database.save_data_folder(state, database.Postgres(Path("bin"), "me", elsewhere))
    monkeypatch.delenv(database.DATA_VARIABLE)
    with pytest.raises(UserError, match=r"elsewhere: the databases of this stack were there and are missing"):
        database.configure(state)
    database.save_data_folder(state, database.Postgres(Path("bin"), "me", state / "postgres"))
    moved = state.rename(reachable / "moved")
    assert database.configure(moved).data == moved / "postgres"
    (moved / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(UserError, match=r"PostgreSQL 9.6, which made the data, is missing .* postgresql-9.6"):
        database.configure(moved)
