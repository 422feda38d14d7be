"""Run git on a given repository, also inside a hook of another one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.environment import clean_environment
from pipelines.core.errors import StageFailed, UserError

# Settings of git that replace a person's own while this project runs git: no hook, signature, prompt or colour, no
# list of ignored files but the repository's, no pruning of tags, names as they are, clones of local folders, nothing in
# the background.
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.excludesFile": os.devnull,
    "core.quotePath": "false",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "push.gpgSign": "false",
    "push.followTags": "false",
    "fetch.prune": "false",
    "fetch.pruneTags": "false",
    "clone.defaultRemoteName": "origin",
    "protocol.file.allow": "always",
    # A collection of garbage goes on in the background, and leaves its lock where it is killed.
    "gc.auto": "0",
    "maintenance.auto": "false",
    "color.ui": "false",
}
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
        """Return the line of stderr, or of stdout where stderr is empty, that gives the reason: without hints."""
        lines = [line.strip() for line in (self.error or self.text).splitlines() if not line.startswith("hint:")]
        errors = [line for kind in ("fatal:", "error:") for line in lines if line.startswith(kind)]
        return next(iter(errors or lines[-1:]), "")


def git_environment() -> dict[str, str]:
    """Return the environment of git and of programs that run git: no repository is named, `_SETTINGS` apply."""
    clean = clean_environment()
    count = clean.get("GIT_CONFIG_COUNT", "")
    given = int(count) if count.isdigit() else 0
    for number, (name, value) in enumerate(_SETTINGS.items(), given):
        clean |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return {**clean, "GIT_CONFIG_COUNT": str(given + len(_SETTINGS))}


def run_git(root: Path, *arguments: str, data: bytes | None = None, index: Path | None = None) -> GitRun:
    """Run git in `root`, with `data` as stdin and with `index` in place of the repository's index file."""
    environment = git_environment()
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
    """Whether `root` is in a git repository; raise UserError where git refuses to use the repository."""
    done = run_git(root, "rev-parse", "--git-dir")
    if "dubious ownership" in done.error:
        raise UserError(
            f"{root}: git refuses this repository, because it belongs to another user; to allow it: "
            f"git config --global --add safe.directory {shlex.quote(str(root.resolve()))}"
        )
    if done.code and "not a git repository" not in done.error:
        raise UserError(f"{root}: git cannot use this repository: {done.problem}")
    return done.code == 0


def has_commit(root: Path, name: str = "HEAD") -> bool:
    """Whether `name` is a commit of the repository that `root` is in."""
    return run_git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").code == 0


def would_commit(file: Path) -> bool:
    """Whether `git add --all` would take `file`: it is in a repository, which does not ignore it."""
    return run_git(file.parent, "check-ignore", "--quiet", "--", file.name).code == 1
