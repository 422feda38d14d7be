"""Run git on a given repository, also inside a hook of another one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import StageFailed

# Set by git inside hooks and aliases, where they name another repository.
_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
)
# Not the lock of the index, which a user's git may hold while an editor is open.
_LOCKED = re.compile(r"Unable to create '(.*/(?:refs/.+|packed-refs)\.lock)': File exists")
_LOCK_SECONDS = 10.0
_LOCKS_REMOVED = 20


@dataclass(frozen=True)
class GitRun:
    """The result of a git command: exit code, stdout, and stderr as text."""

    code: int
    out: bytes
    error: str

    @property
    def text(self) -> str:
        """Return stdout as stripped text."""
        return self.out.decode("utf-8", "surrogateescape").strip()

    @property
    def problem(self) -> str:
        """Return the last line of stderr, or of stdout where stderr is empty."""
        return (self.error or self.text).rpartition("\n")[2].strip()


def git_environment() -> dict[str, str]:
    """Return this process's environment without variables that name a git repository."""
    return {key: value for key, value in os.environ.items() if key not in _VARIABLES}


def run_git(root: Path, *arguments: str, data: bytes | None = None, index: Path | None = None) -> GitRun:
    """Run git in `root`, with `data` as stdin and with `index` in place of the repository's index file."""
    environment = {**git_environment(), "LC_ALL": "C"}
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    done = _run(root, arguments, environment, data)
    for _ in range(_LOCKS_REMOVED):
        match = _LOCKED.search(done.error)
        if done.code == 0 or match is None:
            break
        _wait_for_lock(Path(match[1]))
        done = _run(root, arguments, environment, data)
    return done


def _run(root: Path, arguments: Sequence[str], environment: dict[str, str], data: bytes | None) -> GitRun:
    done = subprocess.run(["git", *arguments], cwd=root, env=environment, input=data, capture_output=True, check=False)
    return GitRun(done.returncode, done.stdout, done.stderr.decode(errors="replace").strip())


def _wait_for_lock(lock: Path) -> None:
    """Wait until git has removed or replaced its lock of a reference; remove one that a killed git has left.

    Git holds such a lock for milliseconds. Clocks and dates are not compared, as they may have been set back.
    """

    def stamp() -> tuple[int, int] | None:
        with suppress(FileNotFoundError):
            status = lock.stat()
            return status.st_ino, status.st_mtime_ns
        return None

    before, end = stamp(), time.monotonic() + _LOCK_SECONDS
    while before is not None and stamp() == before:
        if time.monotonic() > end:
            lock.unlink(missing_ok=True)
            print(f"{lock}: left by a killed git; removed", file=sys.stderr)
            return
        time.sleep(0.05)


def git(root: Path, *arguments: str, data: bytes | None = None, index: Path | None = None) -> str:
    """Return what git prints; raise StageFailed with its error message where it fails."""
    done = run_git(root, *arguments, data=data, index=index)
    if done.code:
        raise StageFailed(f"git {arguments[0]} in {root}: {done.problem or f'exit {done.code}'}")
    return done.text


def in_repository(root: Path) -> bool:
    """Whether `root` is in a git repository."""
    return run_git(root, "rev-parse", "--git-dir").code == 0


def has_commit(root: Path, name: str = "HEAD") -> bool:
    """Whether `name` is a commit of the repository that `root` is in."""
    return run_git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").code == 0
