"""The project's repository beside an image: what the team committed stays, what a new image brings is merged into it.

The image holds code only. Dataset versions, tags and changed parameters are commits of a repository in a volume, which
outlives the image. Each image's code becomes one commit of that repository's branch `image`, and is merged from there:
git then tells what the image changed from what the team did.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipelines.errors import StageFailed, UserError

BRANCH = "image"
_NAMED = ("-c", "user.name=dynamicid", "-c", "user.email=dynamicid@localhost")


def bring_up_to_date(home: Path, image: Path) -> str:
    """Give the repository at `home` the code of the repository at `image`, and say in words what was done.

    `home` may be missing or empty: it is made a clone. Raises UserError where `home` holds something else, and
    StageFailed where both changed the same lines: `home` is then as it was.
    """
    if not home.is_dir() or not any(home.iterdir()):
        _git(home.parent, "clone", "--quiet", "--no-local", str(image), str(home))
        _git(home, "branch", "--force", BRANCH)
        # Where it was cloned from is a layer of an image: nothing to push to.
        _git(home, "remote", "remove", "origin")
        return "a new project with the code of the image"
    if not (home / ".git").is_dir():
        raise UserError(f"{home}: neither empty nor a git repository; give the project a volume of its own")
    _git(home, "fetch", "--quiet", "--no-tags", str(image), "HEAD")
    tree = _git(home, "rev-parse", "FETCH_HEAD^{tree}")
    if tree == _git(home, "rev-parse", f"{BRANCH}^{{tree}}"):
        return "the project has the code of the image"
    code = _git(home, *_NAMED, "commit-tree", tree, "-p", BRANCH, "-m", "The code of the image")
    merged = _run(home, *_NAMED, "merge", "--quiet", "--no-edit", "-m", "Take the code of a new image", code)
    if merged.returncode:
        conflicts = _git(home, "diff", "--name-only", "--diff-filter=U").splitlines()
        _run(home, "merge", "--abort")
        reason = f"both changed {', '.join(conflicts)}" if conflicts else _last(merged)
        raise StageFailed(
            f"{home}: the code of the new image does not merge with what was committed there: {reason}; it is as it "
            f"was. Merge commit {code} there by hand, or start the image before"
        )
    _git(home, "branch", "--force", BRANCH, code)
    return "the code of the new image is merged into the project"


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def _git(folder: Path, *arguments: str) -> str:
    done = _run(folder, *arguments)
    if done.returncode:
        raise StageFailed(f"git {arguments[0]} in {folder}: {_last(done)}")
    return done.stdout.strip()


def _last(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return said[-1] if said else f"exit {done.returncode}"
