"""The exact code, parameters and pointers to data of a registered version, as a commit that no branch holds.

A run rarely commits what it did: `dvc.lock`, `params.yaml` and the `.dvc` files of a checkout are ahead of HEAD. A tag
`model-<commit>` keeps them, so that `dvc gc --all-tags` keeps their data and every clone of the repository has them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipelines.core.errors import StageFailed
from pipelines.versions.git import git, has_commit, run_git
from pipelines.versions.git_tags import commit_tree, local_origin, push_tag

PREFIX = "model-"
# Files that git does not know yet and without which the result cannot be made again.
_NEW = ("dvc.lock", "*.dvc", "*.py", "*.yaml", "*.j2")


def take_snapshot(root: Path, message: str) -> str | None:
    """Tag the working tree of `root` as it is and return the tag; None where `root` is in no git repository.

    Tracked files are taken as they stand, changed or not. The branch, the index and the files stay as they are. In the
    workspace of a run the tag is made in the checkout that it is a clone of as well.
    """
    if not has_commit(root):
        return None
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        git(root, "read-tree", "HEAD", index=index)
        git(root, "add", "--update", "--", ".", index=index)
        new = git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *_NEW)
        if names := [name for name in new.split("\0") if name]:
            git(root, "add", "--", *names, index=index)
        tree = git(root, "write-tree", index=index)
    commit = commit_tree(root, tree, message)
    tag = f"{PREFIX}{commit[:12]}"
    git(root, "update-ref", f"refs/tags/{tag}", commit)
    if local_origin(root) is not None:
        push_tag(root, tag)
    return tag


def fetch_snapshot(root: Path, tag: str) -> None:
    """Make sure that `root` has the tag, from its origin where need be; raise StageFailed where nobody has it."""
    known = f"refs/tags/{tag}"
    if run_git(root, "rev-parse", "--verify", "--quiet", known).code == 0:
        return
    done = run_git(root, "fetch", "--quiet", "--no-tags", "origin", f"{known}:{known}")
    if done.code:
        raise StageFailed(
            f"{tag}: the snapshot of this version is neither here nor at origin ({done.problem}); "
            "`dynamicid restore` brings back the tags of a backup"
        )
