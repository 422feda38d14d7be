"""A commit with the exact code, parameters and data pointers of a registered version, with a tag but on no branch.

Runs rarely commit: `dvc.lock`, `params.yaml` and the `.dvc` files of a checkout differ from HEAD. The tag
`model-<commit>` preserves them, also in clones, and makes `dvc gc --all-tags` keep their data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.core.errors import StageFailed
from pipelines.versions.git import git, has_commit, run_git
from pipelines.versions.git_tags import MACHINES, commit_index, index_of_head, is_remote, local_origin, push_tag

PREFIX = "model-"
# Untracked files that reproducing the result may need.
_NEW = ("dvc.lock", "*.dvc", "*.py", "*.yaml", "*.j2")


def take_snapshot(root: Path, message: str, files: Mapping[str, bytes] | None = None) -> str | None:
    """Tag the working tree of `root` and return the tag; None outside of a git repository with commits.

    Includes changes to tracked files; `files` (path → content) replace what they have there now. Branch, index and
    files stay unchanged. In a run's workspace, the tag is also pushed to the checkout that the workspace was cloned
    from.
    """
    if not has_commit(root):
        return None
    with index_of_head(root) as index:
        git(root, "add", "--update", "--", ".", index=index)
        new = git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *_NEW)
        if names := [name for name in new.split("\0") if name]:
            git(root, "--literal-pathspecs", "add", "--", *names, index=index)
        commit = commit_index(root, index, files or {}, message)
    tag = f"{PREFIX}{commit[:12]}"
    git(root, "update-ref", f"refs/tags/{tag}", commit)
    for place in _places(root):
        push_tag(root, tag, place)
    return tag


def _places(root: Path) -> list[str]:
    """Return the git remotes that keep snapshots: the repository that all machines reach, and a local origin."""
    return [*([MACHINES] if is_remote(root) else []), *(["origin"] if local_origin(root) is not None else [])]


def fetch_snapshot(root: Path, tag: str) -> None:
    """Fetch the tag from origin where `root` lacks it; raise StageFailed where origin lacks it, too."""
    known = f"refs/tags/{tag}"
    if run_git(root, "rev-parse", "--verify", "--quiet", known).code == 0:
        return
    for place in _places(root) or ["origin"]:
        done = run_git(root, "fetch", "--quiet", "--no-tags", place, f"{known}:{known}")
        if done.code == 0:
            break
    else:
        raise StageFailed(
            f"{tag}: the snapshot of this version is neither here nor at origin ({done.problem}); "
            "`dynamicid restore` brings back the tags of a backup"
        )
