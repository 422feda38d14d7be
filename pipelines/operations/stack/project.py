"""The project's repository beside an image: what the team committed stays, what a new image brings is merged into it.

The image holds code only. Dataset versions, tags and changed parameters are commits of a repository in a volume, which
outlives the image. Each image's code becomes one commit of that repository's branch `image`, and is merged from there:
git then tells what the image changed from what the team did.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.versions.git import git, has_commit, run_git

BRANCH = "image"
_NAMED = ("-c", "user.name=dynamicid", "-c", "user.email=dynamicid@localhost")


def bring_up_to_date(home: Path, image: Path) -> str:
    """Give the repository at `home` the code of the repository at `image`, and say in words what was done.

    `home` may be missing, empty or left unfinished by a call that was killed: it is made. Raises UserError where `home`
    holds something else, and StageFailed where the code cannot be merged: `home` is then as it was.
    """
    if not _has(home, "HEAD"):
        return _make(home, image)
    if not _has(home, f"refs/heads/{BRANCH}"):
        raise UserError(f"{home}: a repository that no image made; give the project a volume of its own")
    git(home, "fetch", "--quiet", "--no-tags", str(image), "HEAD")
    tree = git(home, "rev-parse", "FETCH_HEAD^{tree}")
    if tree == git(home, "rev-parse", f"{BRANCH}^{{tree}}"):
        return "the project has the code of the image"
    code = git(home, *_NAMED, "commit-tree", tree, "-p", BRANCH, "-m", "The code of the image")
    merged = run_git(home, *_NAMED, "merge", "--quiet", "--no-edit", "-m", "Take the code of a new image", code)
    if merged.code:
        conflicts = git(home, "diff", "--name-only", "--diff-filter=U").splitlines()
        run_git(home, "merge", "--abort")
        # Which files are in the way stands in the middle of git's words.
        words = " ".join((merged.error or merged.text).split())
        reason = f"both changed {', '.join(conflicts)}" if conflicts else words
        raise StageFailed(
            f"{home}: the code of the new image does not merge with what is there: {reason}; it is as it was. Merge "
            f"commit {code} there by hand, or start the image before"
        )
    git(home, "update-ref", f"refs/heads/{BRANCH}", code)
    return "the code of the new image is merged into the project"


def _make(home: Path, image: Path) -> str:
    """Make the repository; its own branch comes last, so that what was killed before is made again."""
    found = {path.name for path in home.iterdir()} - {"lost+found"} if home.is_dir() else set()
    if found and ".git" not in found:
        raise UserError(f"{home}: neither empty nor a git repository; give the project a volume of its own")
    home.mkdir(parents=True, exist_ok=True)
    git(home, "init", "--quiet", "--initial-branch", "main")
    (home / ".git" / "index.lock").unlink(missing_ok=True)
    git(home, "fetch", "--quiet", "--no-tags", str(image), "HEAD")
    git(home, "update-ref", f"refs/heads/{BRANCH}", "FETCH_HEAD")
    git(home, "read-tree", "--reset", "-u", "FETCH_HEAD")
    git(home, "update-ref", "HEAD", "FETCH_HEAD")
    return "a new project with the code of the image"


def _has(home: Path, name: str) -> bool:
    """Whether `home` is itself a repository in which `name` is a commit."""
    return (home / ".git").is_dir() and has_commit(home, name)
