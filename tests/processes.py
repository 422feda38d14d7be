"""Run programs in tests: commands of this environment, git with a fixed author; wait for other processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Answer = TypeVar("Answer")
# Make a whole chain on eight people small enough for a test: hold out some of them, draw few pictures.
SMALL_CHAIN = (
    "preprocess.test_share=0.4",
    "preprocess.val_share=0.2",
    "evaluate.people=2",
    "evaluate.prompts=1",
    "evaluate.several_people.two=1",
    "evaluate.steps=2",
    "serve.steps=2",
    "evaluate.bootstrap=20",
)
PROJECT = Path(__file__).resolve().parents[1]


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    without: tuple[str, ...] = (),
    code: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Run a command; fail with its output where it does not end with `code`.

    `env` goes on top of the environment, of which what begins with a word of `without` is left out.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(without or ("\0",))}
    done = subprocess.run(command, cwd=cwd, env={**kept, **(env or {})}, capture_output=True, text=True, check=False)
    assert done.returncode == code, (done.stdout + done.stderr)[-5000:]
    return done


def dynamicid(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command line in `cwd`: the code of `cwd` where it is a checkout, else of the checkout under test."""
    code_of = {} if (cwd / "pipelines").is_dir() else {"PYTHONPATH": str(PROJECT)}
    return run(sys.executable, "-m", "pipelines.cli", *arguments, cwd=cwd, env={**code_of, **(env or {})}, **options)


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in `folder` and return what it prints."""
    return run(sys.executable, "-m", "dvc", *arguments, cwd=folder).stdout


def git(folder: Path, *arguments: str) -> str:
    """Run git in `folder` and return what it prints."""
    return run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments, cwd=folder).stdout


def commit_all(folder: Path, message: str) -> None:
    """Make `folder` a repository, if it is none, and commit all that is in it."""
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message)


def free_port() -> int:
    """Return a port of the loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    ask: Callable[[], Answer], seconds: float, what: str | Callable[[], object], pause: float = 0.1
) -> Answer:
    """Ask until the answer is true and return it; fail with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < end, f"{what() if callable(what) else what}, after {seconds:.0f} s"
        time.sleep(pause)
    return answer


def link_environment(checkout: Path) -> None:
    """Give a clone the environment of this process, so that `make env` finds it ready."""
    (checkout / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (checkout / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (checkout / ".venv" / ".ready").touch()
