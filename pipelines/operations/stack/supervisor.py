"""The supervisor that keeps the stack's processes alive, and the end of just those processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any
from xmlrpc.client import Fault, ServerProxy

from pipelines.core.errors import StageFailed
from pipelines.core.locks import hold
from pipelines.operations.programs import wait_while
from pipelines.operations.stack import postgres as database
from pipelines.operations.stack.settings import MARK, Stack

if TYPE_CHECKING:
    import psutil

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
        process = psutil.Process(int((stack.state / _PID).read_text(encoding="utf-8")))
        found = "supervisor.supervisord" in process.cmdline() and _is_marked(process, stack)
    except (OSError, ValueError, psutil.Error):
        return None
    return process.pid if found and not is_running(stack) else None


def alone(stack: Stack) -> AbstractContextManager[None]:
    """Keep a second start or end of the same stack out meanwhile; raise StageFailed where one is at work."""
    taken = StageFailed(f"{stack.state}: this stack is being started or ended already; wait for that")
    return hold(stack.state / "stack.lock", taken)


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
    # The supervisor itself kills what does not end in its time.
    wait_while(lambda: any(status(stack)[name] == "STOPPING" for name in names))


def members(stack: Stack) -> list[psutil.Process]:
    """Return all processes but this one that carry this stack's mark in their environment."""
    import psutil

    return [one for one in psutil.process_iter() if one.pid != os.getpid() and _is_marked(one, stack)]


def _is_marked(process: psutil.Process, stack: Stack) -> bool:
    import psutil

    try:
        return process.environ().get(MARK) == str(stack.state)
    except (OSError, psutil.Error):  # it ended meanwhile, or is somebody else's
        return False


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
    wait_while(lambda: is_running(stack) or unreachable(stack) is not None, seconds)
    ended = 0
    for _ in range(5):  # what ends may have started something meanwhile
        left = members(stack)
        ended += len(left)
        _end(left)
    # The database carries no mark: it is given none of the stack's environment.
    return ended + database.end(database.data_folder(stack.state))


def _end(processes: list[psutil.Process]) -> None:
    import psutil

    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(processes, timeout=20)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=10)
