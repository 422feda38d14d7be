"""Run git on a given repository, also inside a hook of another one."""

from __future__ import annotations

import os
import subprocess
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
    done = subprocess.run(["git", *arguments], cwd=root, env=environment, input=data, capture_output=True, check=False)
    return GitRun(done.returncode, done.stdout, done.stderr.decode(errors="replace").strip())


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
