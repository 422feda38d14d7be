"""The supervisor of the stack's processes: start and stop services, and end exactly this stack's processes."""

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
from pipelines.operations.programs import run_program, wait_while
from pipelines.operations.stack import postgres as database
from pipelines.operations.stack.settings import STATE_VARIABLE, Stack

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
    """Return a client of the supervisor's XML-RPC interface, over its socket."""
    from supervisor.xmlrpc import SupervisorTransport

    return ServerProxy("http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{stack.socket}"))


def is_running(stack: Stack) -> bool:
    """Whether the supervisor of this stack answers, also while it shuts down."""
    try:
        proxy(stack).supervisor.getState()
    except OSError:
        return False
    except Fault:
        pass
    return True


def unresponsive_supervisor(stack: Stack) -> int | None:
    """Return the process id of a supervisor that runs but does not answer (its socket was deleted), else None."""
    import psutil

    try:
        process = psutil.Process(int((stack.state / _PID).read_text(encoding="utf-8")))
        ours = "supervisor.supervisord" in process.cmdline() and _belongs_to(process, stack)
    except (OSError, ValueError, psutil.Error):
        return None
    return process.pid if ours and not is_running(stack) else None


def lock_stack(stack: Stack) -> AbstractContextManager[None]:
    """Hold the lock for starting and ending a stack; raise StageFailed where another process holds it."""
    taken = StageFailed(f"{stack.state}: this stack is being started or ended already; wait for that")
    return hold(stack.state / "stack.lock", taken)


def launch(stack: Stack, environment: Mapping[str, str]) -> None:
    """Start the supervisor in the background, which starts PostgreSQL."""
    (stack.state / "logs").mkdir(parents=True, exist_ok=True)
    stack.prepare_socket()
    configuration = stack.root / "docker" / "supervisord.conf"
    command = (sys.executable, "-m", "supervisor.supervisord", "-c", configuration)
    env = {**environment, "STACK_SOCKET": str(stack.socket)}
    run_program(f"supervisord ({stack.state / 'logs'})", *command, env=env, cwd=stack.state, stdin=subprocess.DEVNULL)


def status(stack: Stack) -> dict[str, str]:
    """Return {service: state of the supervisor}: RUNNING, STARTING, BACKOFF, STOPPED, FATAL …"""
    listed: Any = proxy(stack).supervisor.getAllProcessInfo()
    return {info["name"]: info["statename"] for info in listed}


def start_services(stack: Stack, names: tuple[str, ...] = SERVICES) -> None:
    """Start the services that do not run, without waiting for them."""
    states = status(stack)
    for name in names:
        if states[name] not in ("RUNNING", "STARTING"):
            proxy(stack).supervisor.startProcess(name, False)


def stop_services(stack: Stack, names: tuple[str, ...]) -> None:
    """Stop services, all at once, and wait until they have ended; they stay stopped until they are started."""
    states = status(stack)
    for name in names:
        if states[name] in ("RUNNING", "STARTING", "BACKOFF"):
            proxy(stack).supervisor.stopProcess(name, False)
    # No time limit: the supervisor kills a service that does not end in time.
    wait_while(lambda: any(status(stack)[name] == "STOPPING" for name in names))


def stack_processes(stack: Stack) -> list[psutil.Process]:
    """Return all processes but this one that have this stack's STATE_VARIABLE in their environment."""
    import psutil

    return [one for one in psutil.process_iter() if one.pid != os.getpid() and _belongs_to(one, stack)]


def _belongs_to(process: psutil.Process, stack: Stack) -> bool:
    import psutil

    try:
        return process.environ().get(STATE_VARIABLE) == str(stack.state)
    except (OSError, psutil.Error):  # it has ended, or belongs to another user
        return False


def has_processes(stack: Stack) -> bool:
    """Whether any process of this stack runs, including those of a killed supervisor."""
    orphan = database.orphan_pid(database.data_folder(stack.state))
    return is_running(stack) or bool(stack_processes(stack)) or orphan is not None


def shut_down(stack: Stack, seconds: float = 90) -> int:
    """End the supervisor with its services, then the remaining processes; return the number of remaining ones.

    Only processes with this stack's STATE_VARIABLE are ended, and a PostgreSQL of its data folder that has lost its
    supervisor. Other stacks and trainings that were started by hand continue.
    """
    unresponsive = unresponsive_supervisor(stack)
    if is_running(stack):
        # Database last: the other services still write to it while they end.
        stop_services(stack, SERVICES[1:])
        proxy(stack).supervisor.shutdown()
    elif unresponsive is not None:
        os.kill(unresponsive, signal.SIGTERM)  # ends its services, too, database last
    wait_while(lambda: is_running(stack) or unresponsive_supervisor(stack) is not None, seconds)
    ended = 0
    for _ in range(5):  # an ending process may have started others
        remaining = stack_processes(stack)
        ended += len(remaining)
        _end(remaining)
    # PostgreSQL does not inherit the stack's environment, so it is not among stack_processes.
    return ended + database.end_orphan(database.data_folder(stack.state))


def _end(processes: list[psutil.Process]) -> None:
    import psutil

    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=20)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=10)
