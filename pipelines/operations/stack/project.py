"""The project's repository in a volume: the team's commits stay, and the code of a new image is merged into them.

An image contains code only. Dataset versions, tags and changed parameters are commits of the repository in the volume,
which outlives the image. Each image's code becomes one commit of the branch `image` and is merged from there, so that
git can separate the image's changes from the team's.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.versions.git import git, has_commit, run_git

BRANCH = "image"
_AUTHOR = ("-c", "user.name=dynamicid", "-c", "user.email=dynamicid@localhost")


def bring_up_to_date(home: Path, image: Path) -> str:
    """Merge the code of the repository at `image` into the repository at `home`; return a description of the change.

    `home` is created where it is missing, empty or incomplete after a killed call. Raises UserError where `home` has
    other contents, and StageFailed where the code cannot be merged; `home` is unchanged then.
    """
    if not _has(home, "HEAD"):
        return _create(home, image)
    if not _has(home, f"refs/heads/{BRANCH}"):
        raise UserError(f"{home}: a repository that was not made by an image; give the project a separate volume")
    git(home, "fetch", "--quiet", "--no-tags", str(image), "HEAD")
    tree = git(home, "rev-parse", "FETCH_HEAD^{tree}")
    if tree == git(home, "rev-parse", f"{BRANCH}^{{tree}}"):
        return "the project has the code of the image"
    code = git(home, *_AUTHOR, "commit-tree", tree, "-p", BRANCH, "-m", "The code of the image")
    merged = run_git(home, *_AUTHOR, "merge", "--quiet", "--no-edit", "-m", "Take the code of a new image", code)
    if merged.code:
        conflicts = git(home, "diff", "--name-only", "--diff-filter=U").splitlines()
        run_git(home, "merge", "--abort")
        # Without conflicts, git's message lists the uncommitted files that a merge would overwrite.
        message = " ".join((merged.error or merged.text).split())
        reason = f"both changed {', '.join(conflicts)}" if conflicts else message
        raise StageFailed(
            f"{home}: the code of the new image does not merge with this repository: {reason}; it is unchanged. Merge "
            f"commit {code} there by hand, or start the previous image"
        )
    git(home, "update-ref", f"refs/heads/{BRANCH}", code)
    return "the code of the new image is merged into the project"


def _create(home: Path, image: Path) -> str:
    """Create the repository; HEAD is set last, so that the next call repeats a creation that was killed."""
    names = {path.name for path in home.iterdir()} - {"lost+found"} if home.is_dir() else set()
    if names and ".git" not in names:
        raise UserError(f"{home}: neither empty nor a git repository; give the project a separate volume")
    home.mkdir(parents=True, exist_ok=True)
    git(home, "init", "--quiet", "--initial-branch", "main")
    (home / ".git" / "index.lock").unlink(missing_ok=True)
    git(home, "fetch", "--quiet", "--no-tags", str(image), "HEAD")
    git(home, "update-ref", f"refs/heads/{BRANCH}", "FETCH_HEAD")
    git(home, "read-tree", "--reset", "-u", "FETCH_HEAD")
    git(home, "update-ref", "HEAD", "FETCH_HEAD")
    return "a new project with the code of the image"


def _has(home: Path, name: str) -> bool:
    """Whether `home` is the top folder of a repository in which `name` is a commit."""
    return (home / ".git").is_dir() and has_commit(home, name)
