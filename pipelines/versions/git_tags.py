"""Tags on commits that no branch holds, made by git's plumbing: the user's branch, index and files stay as they are."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.versions.git import git, has_commit, in_repository, run_git

_ATTEMPTS = 30
_NOBODY = {"user.name": "dynamicid", "user.email": "dynamicid@localhost"}


def check_repository(root: Path) -> None:
    """Raise UserError where `root` is in no git repository, or in one without a commit."""
    if not in_repository(root):
        raise UserError(f"{root}: not a git repository, so no version can be tagged; `git init`, or --no-version")
    if not has_commit(root):
        raise UserError(f"{root}: the git repository has no commit to put a version on; commit first, or --no-version")


def numbered_tags(root: Path, prefix: str) -> list[tuple[int, str]]:
    """Return (number, name) of every tag `<prefix><number>`, in order."""
    names = git(root, "for-each-ref", "--format=%(refname:strip=2)", f"refs/tags/{prefix}*").splitlines()
    found = [
        (int(match.group(1)), name) for name in names if (match := re.fullmatch(re.escape(prefix) + r"(\d+)", name))
    ]
    return sorted(found)


def read_at(root: Path, tags: list[str], file: str) -> dict[str, bytes]:
    """Return the content of `file` (relative to `root`) at each tag that has it."""
    prefix = git(root, "rev-parse", "--show-prefix")
    wanted = "".join(f"{tag}:{prefix}{file}\n" for tag in tags)
    out = run_git(root, "cat-file", "--batch", data=wanted.encode()).out
    contents: dict[str, bytes] = {}
    at = 0
    for tag in tags:
        end = out.index(b"\n", at)
        header = out[at:end].split()
        at = end + 1
        if header[-1] == b"missing":
            continue
        size = int(header[-1])
        contents[tag] = out[at : at + size]
        at += size + 1
    return contents


def commit_files(root: Path, files: dict[str, bytes], message: str) -> str:
    """Return a commit whose tree is HEAD's with `files` (relative to `root`) put in; HEAD itself if they are there."""
    prefix = git(root, "rev-parse", "--show-prefix")
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        git(root, "read-tree", "HEAD", index=index)
        for name, content in files.items():
            blob = git(root, "hash-object", "-w", "--stdin", data=content)
            git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{prefix}{name}", index=index)
        tree = git(root, "write-tree", index=index)
    return commit_tree(root, tree, message)


def commit_tree(root: Path, tree: str, message: str) -> str:
    """Return a commit of `tree` upon HEAD; HEAD itself if it has that tree."""
    if tree == git(root, "rev-parse", "HEAD^{tree}"):
        return git(root, "rev-parse", "HEAD")
    return git(root, *_identity(root), "commit-tree", tree, "-p", "HEAD", data=message.encode())


def local_origin(root: Path) -> Path | None:
    """Return the checkout on this machine that `root` is a clone of, or None where origin is none or elsewhere."""
    url = run_git(root, "remote", "get-url", "origin").text.removeprefix("file://")
    return (root / url).resolve() if url and (root / url).is_dir() else None


def fetch_tags(root: Path, prefix: str) -> None:
    """Bring the tags `<prefix>*` of a local origin here; raise StageFailed where one name means two things."""
    done = run_git(root, "fetch", "--quiet", "--no-tags", "origin", f"refs/tags/{prefix}*:refs/tags/{prefix}*")
    if done.code:
        raise StageFailed(
            f"{root}: the tags {prefix}* of origin cannot be fetched ({done.problem}); if one of them differs here, "
            "`git tag -d` the one that is wrong"
        )


def push_tag(root: Path, tag: str) -> None:
    """Make sure that a local origin has `tag`."""
    git(root, "push", "--quiet", "origin", f"refs/tags/{tag}")


def claim_tag(root: Path, prefix: str, commit: str, message: str, *, push: bool) -> str | None:
    """Give `commit` the next free annotated tag `<prefix><number>`; None where another took the number meanwhile.

    With `push` the tag is made at origin first: who gets it there has it, and a run killed in between has lost nothing.
    """
    taken = numbered_tags(root, prefix)
    name = f"{prefix}{taken[-1][0] + 1 if taken else 1}"
    tagger = git(root, *_identity(root), "var", "GIT_COMMITTER_IDENT")
    body = f"object {commit}\ntype commit\ntag {name}\ntagger {tagger}\n\n{message.strip()}\n"
    made = git(root, "mktag", data=body.encode())
    if push and run_git(root, "push", "--quiet", "origin", f"{made}:refs/tags/{name}").code:
        return None
    # An old value of zeros: only where there is no such tag yet.
    return name if run_git(root, "update-ref", f"refs/tags/{name}", made, "0" * len(made)).code == 0 else None


def in_turn(claim: Callable[[], str | None]) -> str:
    """Return the tag that `claim` gets, after a little longer wait each time it gets none; StageFailed in the end."""
    from tenacity import RetryError, Retrying, retry_if_result, stop_after_attempt, wait_exponential

    again = retry_if_result(lambda tag: tag is None)
    wait = wait_exponential(multiplier=0.065, exp_base=1.3, max=2.0)
    try:
        return str(Retrying(retry=again, stop=stop_after_attempt(_ATTEMPTS), wait=wait)(claim))
    except RetryError:
        message = f"no version number could be claimed in {_ATTEMPTS} attempts; is origin writable?"
        raise StageFailed(message) from None


def _identity(root: Path) -> list[str]:
    """Return options that give git a name and an address, for those of the two that it lacks."""
    options: list[str] = []
    for key, value in _NOBODY.items():
        if run_git(root, "config", key).code:
            options += ["-c", f"{key}={value}"]
    return options
