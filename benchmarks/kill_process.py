"""Run a command of `dynamicid` in a child of this process, and kill it with all its processes at a given moment.

The libraries are imported once, in this process: a child is forked from it and starts in milliseconds. Children of the
command (git, DVC, the JVM of Spark and its workers) are started as always. Linux only.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

CALLS_SOURCE = Path(__file__).with_name("kill_calls.c")
_VARIABLE = "KILL_CALLS"
# Of prctl(2): orphans of a command become children of this process; a command dies with this process.
_SUBREAPER, _DEATH_SIGNAL = 36, 1
_PATIENCE = 900.0


class _Control(ctypes.Structure):
    """The struct `control` of kill_calls.c."""

    _fields_ = (
        ("count", ctypes.c_uint),
        ("kill_at", ctypes.c_uint),
        ("group", ctypes.c_int),
        ("last", ctypes.c_char * 500),
        ("root", ctypes.c_char * 4096),
    )


@dataclass(frozen=True)
class Moment:
    """When a command is killed: `after` so many seconds, or at its n-th `call` that changes files; None: never."""

    after: float | None = None
    call: int | None = None

    def halved(self) -> Moment:
        """Return the moment in half the time, or after half the calls."""
        return Moment(self.after and self.after / 2, self.call and max(1, self.call // 2))


NEVER = Moment()


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (negative: signal), seconds, calls that changed files and the last one, output."""

    code: int
    seconds: float
    calls: int
    last_call: str
    output: str

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL

    @property
    def last_line(self) -> str:
        """The last line of its output."""
        return next((line.strip() for line in reversed(self.output.splitlines()) if line.strip()), "")


def begin(state: Path, environment: Mapping[str, str]) -> None:
    """Start this program again with kill_calls.c preloaded (where there is a C compiler), then import the libraries.

    `environment` is that of the commands. After the new start this function is called again, and returns.
    """
    if _VARIABLE not in os.environ:
        state.mkdir(parents=True, exist_ok=True)
        control, library = state / "calls.control", state / "calls.so"
        control.write_bytes(bytes(ctypes.sizeof(_Control)))
        built = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(CALLS_SOURCE), "-ldl"]
        counted = False
        with contextlib.suppress(FileNotFoundError):
            counted = subprocess.run(built, check=False).returncode == 0
        if not counted:
            print("no C compiler (cc): commands are killed at random times only", file=sys.stderr)
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        preload = {"LD_PRELOAD": str(library.resolve())} if counted else {}
        names = {_VARIABLE: str(control.resolve()), "PYTHONDONTWRITEBYTECODE": "1"}
        os.environ.update({**limits, **preload, **names, **environment})
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the command is killed, too
    _import_libraries()


def counts_calls() -> bool:
    """Whether calls that change files are counted here."""
    return "LD_PRELOAD" in os.environ


def _import_libraries() -> None:
    """Import what the commands import, so that a forked child need not."""
    import accelerate  # noqa: F401
    import diffusers  # noqa: F401
    import great_expectations  # noqa: F401
    import mlflow.pyfunc  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.dataset  # noqa: F401
    import pyspark  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    import pipelines.cli
    import pipelines.evaluation.protocol
    import pipelines.operations.forgetting.forget
    import pipelines.registry.promotion
    import pipelines.stages.ingest
    import pipelines.stages.preprocess
    import pipelines.stages.train_anchoring  # noqa: F401

    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        raise RuntimeError(f"libraries started threads, which a forked child would lack: {', '.join(others)}")


def run_command(
    arguments: Sequence[str],
    folder: Path,
    counted: Path,
    log: Path,
    moment: Moment = NEVER,
    *,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
) -> Ended:
    """Run `dynamicid ARGUMENTS` in `folder` and kill it at `moment`; no process of it is left afterwards.

    Calls that change files below `counted` are counted. `prepare` runs in the child before the command.
    """
    control = _control()
    control.count, control.kill_at, control.last = 0, moment.call or 0, b""
    control.root = f"{counted.resolve()}/".encode()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run_child(arguments, folder, log, control, environment or {}, prepare)
    try:
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        code = _wait(child, started + (moment.after if moment.after is not None else _PATIENCE))
    finally:
        kill_tree(child)
    if code is None and moment.after is None:
        raise TimeoutError(f"dynamicid {' '.join(arguments)} did not end in {_PATIENCE:.0f} s; see {log}")
    seconds = time.monotonic() - started
    control.group = 0
    output = log.read_text(encoding="utf-8", errors="replace")
    return Ended(-signal.SIGKILL if code is None else code, seconds, control.count, control.last.decode(), output)


def _control() -> _Control:
    import mmap

    with Path(os.environ[_VARIABLE]).open("r+b") as file:
        return _Control.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(_Control)))


def _wait(child: int, until: float) -> int | None:
    """Return the exit code of `child`, or None where it still runs at the time `until`."""
    handle = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([handle], [], [], max(0.0, until - time.monotonic()))
    finally:
        os.close(handle)
    if not ready:
        return None
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_tree(child: int) -> None:
    """Kill the process group of `child` and every process below this one, until none is left."""
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0)[0]:
                pass


def _run_child(  # noqa: PLR0917
    arguments: Sequence[str],
    folder: Path,
    log: Path,
    control: _Control,
    environment: Mapping[str, str],
    prepare: Callable[[], None] | None,
) -> None:
    """Become the command: group, folder, output, environment; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.update(environment)
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if prepare is not None:
            prepare()
        control.group = os.getpid()
        code = call_command(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def call_command(arguments: Sequence[str]) -> int:
    """Run the command line in this process and return its exit code."""
    from pipelines.cli import main

    try:
        main(list(arguments))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
