"""The supervisor that keeps the stack's processes alive, and the end of just those processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from pipelines.core.errors import StageFailed
from pipelines.operations.stack import postgres as database
from pipelines.operations.stack.settings import MARK, Stack

_PID = "supervisord.pid"
SERVICES = (
    "postgres",
    "mlflow",
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
)


def proxy(stack: Stack) -> ServerProxy:
    """Return the supervisor's own interface, over its socket."""
    from supervisor.xmlrpc import SupervisorTransport

    return ServerProxy("http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{stack.socket}"))


def is_running(stack: Stack) -> bool:
    """Whether the supervisor of this stack answers; one that is shutting down still does."""
    try:
        proxy(stack).supervisor.getState()
    except OSError:
        return False
    except Fault:
        pass
    return True


def unreachable(stack: Stack) -> int | None:
    """Return the supervisor of this stack where it runs but does not answer, as one whose socket was deleted."""
    import psutil

    try:
        number = int((stack.state / _PID).read_text(encoding="utf-8"))
        found = "supervisor.supervisord" in psutil.Process(number).cmdline() and number in members(stack)
    except (OSError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return number if found and not is_running(stack) else None


@contextmanager
def alone(stack: Stack) -> Iterator[None]:
    """Keep a second start or end of the same stack out meanwhile; raise StageFailed where one is at work."""
    from filelock import FileLock, Timeout

    stack.state.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(stack.state / "stack.lock", timeout=0):
            yield
    except Timeout:
        raise StageFailed(f"{stack.state}: this stack is being started or ended already; wait for that") from None


def launch(stack: Stack, environment: Mapping[str, str]) -> None:
    """Start the supervisor in the background; it starts PostgreSQL."""
    (stack.state / "logs").mkdir(parents=True, exist_ok=True)
    stack.place_socket()
    configuration = stack.root / "docker" / "supervisord.conf"
    done = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
        env={**environment, "STACK_SOCKET": str(stack.socket)},
        cwd=stack.state,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StageFailed(f"supervisord: {done.stderr.strip().splitlines()[-1]}; see {stack.state / 'logs'}")


def status(stack: Stack) -> dict[str, str]:
    """Return the state of every service in the supervisor's words: RUNNING, STARTING, BACKOFF, STOPPED, FATAL …"""
    listed: Any = proxy(stack).supervisor.getAllProcessInfo()
    return {info["name"]: info["statename"] for info in listed}


def start_services(stack: Stack, names: tuple[str, ...] = SERVICES) -> None:
    """Start the services that do not run yet, without waiting for them."""
    present = status(stack)
    for name in names:
        if present[name] not in ("RUNNING", "STARTING"):
            proxy(stack).supervisor.startProcess(name, False)


def stop_services(stack: Stack, names: tuple[str, ...]) -> None:
    """Stop services, all at once, and wait for their end; they stay stopped until they are started."""
    present = status(stack)
    for name in names:
        if present[name] in ("RUNNING", "STARTING", "BACKOFF"):
            proxy(stack).supervisor.stopProcess(name, False)
    while any(status(stack)[name] == "STOPPING" for name in names):
        time.sleep(0.2)  # the supervisor itself kills what does not end in its time


def members(stack: Stack) -> list[int]:
    """Return the ids of all processes that carry this stack's mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
        if f"{MARK}={stack.state}".encode() in variables and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def left_over(stack: Stack) -> bool:
    """Whether anything of this stack runs, its supervisor or what a killed one left behind."""
    return is_running(stack) or bool(members(stack)) or database.orphan(database.data_folder(stack.state)) is not None


def shut_down(stack: Stack, seconds: float = 90) -> int:
    """End the supervisor with its services, then what they left behind; return how many were left behind.

    Only processes with this stack's mark are touched, and a server of its data folder that has no supervisor: a stack
    beside it, or a training begun by hand, goes on.
    """
    deaf = unreachable(stack)
    if is_running(stack):
        # Database last: the others want to say good-bye to it.
        stop_services(stack, SERVICES[1:])
        proxy(stack).supervisor.shutdown()
    elif deaf is not None:
        os.kill(deaf, signal.SIGTERM)  # it ends its services by itself, database last
    deadline = time.monotonic() + seconds
    while (is_running(stack) or unreachable(stack) is not None) and time.monotonic() < deadline:
        time.sleep(0.2)
    ended = 0
    for _ in range(5):  # what ends may have started something meanwhile
        left = members(stack)
        ended += len(left)
        _end(left)
    # The database carries no mark: it is given none of the stack's environment.
    return ended + database.end(database.data_folder(stack.state))


def _end(processes: list[int]) -> None:
    import psutil

    found = []
    for number in processes:
        try:
            found.append(psutil.Process(number))
            found[-1].terminate()
        except psutil.NoSuchProcess:
            continue
    _, stubborn = psutil.wait_procs(found, timeout=20)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=10)
