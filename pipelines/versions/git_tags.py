"""Tag commits that are outside any branch: the user's branch, index and files stay unchanged."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipelines.core.errors import StageFailed, UserError
from pipelines.versions.git import GitRun, git, has_commit, in_repository, run_git

_ATTEMPTS = 30
# The git remote of a checkout that is one of several machines: the repository that all of them reach.
MACHINES = "machines"
DEFAULT_IDENTITY = {"user.name": "dynamicid", "user.email": "dynamicid@localhost"}


def check_repository(root: Path) -> None:
    """Raise UserError where `root` is not in a git repository, or where that repository has no commit."""
    if not in_repository(root):
        raise UserError(f"{root}: not a git repository, so no version can be tagged; `git init`, or --no-version")
    if not has_commit(root):
        raise UserError(f"{root}: the git repository has no commit to put a version on; commit first, or --no-version")


def numbered_tags(root: Path, prefix: str) -> list[tuple[int, str]]:
    """Return (number, name) of every tag `<prefix><number>`, sorted."""
    names = git(root, "for-each-ref", "--format=%(refname:strip=2)", f"refs/tags/{prefix}*").splitlines()
    return sorted(
        (int(match.group(1)), name) for name in names if (match := re.fullmatch(re.escape(prefix) + r"(\d+)", name))
    )


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
    """Commit HEAD's tree with `files` (path relative to `root` → content); return HEAD where it has them already."""
    with index_of_head(root) as index:
        return commit_index(root, index, files, message)


@contextmanager
def index_of_head(root: Path) -> Iterator[Path]:
    """Yield an index file with the files of HEAD, beside the repository's own."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        git(root, "read-tree", "HEAD", index=index)
        yield index


def commit_index(root: Path, index: Path, files: Mapping[str, bytes], message: str) -> str:
    """Add `files`, as in `commit_files`, to `index`; return its commit with parent HEAD, or HEAD if it is the same."""
    prefix = git(root, "rev-parse", "--show-prefix")
    for name, content in files.items():
        blob = git(root, "hash-object", "-w", "--stdin", data=content)
        git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{prefix}{name}", index=index)
    tree = git(root, "write-tree", index=index)
    if tree == git(root, "rev-parse", "HEAD^{tree}"):
        return git(root, "rev-parse", "HEAD")
    return git(root, *_identity(root), "commit-tree", tree, "-p", "HEAD", data=message.encode())


def local_origin(root: Path) -> Path | None:
    """Return the local checkout that `root` is a clone of, or None where origin is missing or not local."""
    origin = origin_path(root)
    return origin if origin is not None and origin.is_dir() else None


def origin_path(root: Path) -> Path | None:
    """Return the folder that `root` is a clone of, even where it is gone; None where origin is unset or elsewhere."""
    url = run_git(root, "remote", "get-url", "origin").text
    path = url2pathname(urlsplit(url).path) if url.startswith("file:") else url
    # git's own rule: a colon before any slash names a machine.
    if not path or re.match(r"[^/]+:", path) or (root / path).is_file():
        return None
    return (root / path).resolve()


def is_remote(root: Path, name: str = MACHINES) -> bool:
    """Whether the repository has a git remote `name`; by default, whether it is that of one of several machines."""
    return run_git(root, "remote", "get-url", name).code == 0


def fetch_tags(root: Path, prefix: str, place: str = "origin") -> None:
    """Fetch the tags `<prefix>*` of a git remote; raise StageFailed where that fails, as when a local tag differs."""
    done = run_git(root, "fetch", "--quiet", "--no-tags", place, f"refs/tags/{prefix}*:refs/tags/{prefix}*")
    if done.code:
        raise StageFailed(
            f"{root}: the tags {prefix}* of {place} cannot be fetched ({done.problem}); if a tag here differs "
            f"from that of {place}, delete the wrong one with `git tag -d`"
        )


def push_tag(root: Path, tag: str, place: str = "origin") -> None:
    """Push `tag` to a git remote."""
    git(root, "push", "--quiet", place, f"refs/tags/{tag}")


class NotClaimed(Exception):
    """Another run took the number first, or is about to; the message is git's reason."""


def claim_tag(root: Path, prefix: str, commit: str, message: str, *, push: str | None = None) -> str:
    """Give `commit` the next annotated tag `<prefix><number>`; raise NotClaimed where another run took the number.

    The tag is made at the git remote `push` first: only one clone gets the number, and a run that is killed before it
    has the tag here loses nothing. Raises StageFailed where no tag can be made, here or there, whatever its number.
    """
    taken = numbered_tags(root, prefix)
    name = f"{prefix}{taken[-1][0] + 1 if taken else 1}"
    tagger = git(root, *_identity(root), "var", "GIT_COMMITTER_IDENT")
    body = f"object {commit}\ntype commit\ntag {name}\ntagger {tagger}\n\n{message.strip()}\n"
    made = git(root, "mktag", data=body.encode())
    tag = f"refs/tags/{name}"
    if push:
        pushed = run_git(root, "push", "--quiet", push, f"{made}:{tag}")
        if pushed.code:
            is_there = run_git(root, "ls-remote", "--exit-code", push, tag).code == 0
            raise _refused(pushed, is_there, f"{root}: the tag {name} cannot be pushed to {push}")
    # With zeros as the old value git does not overwrite a tag that exists.
    done = run_git(root, "update-ref", tag, made, "0" * len(made))
    if done.code:
        is_there = run_git(root, "rev-parse", "--verify", "--quiet", tag).code == 0
        raise _refused(done, is_there, f"{root}: the tag {name} cannot be made")
    return name


def _refused(failed: GitRun, is_there: bool, what: str) -> Exception:
    """Return NotClaimed where another run has made the tag or is about to (git's lock is there), else StageFailed."""
    lines = [line.strip() for line in failed.error.splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith(("fatal:", "remote:", "! ["))]
    reason = (reasons or lines or ["git gives no reason"])[0]
    if is_there or re.search(r"(?:File|already) exists|failed to update ref", failed.error):
        return NotClaimed(reason)
    return StageFailed(f"{what}: {reason}")


def retry_claim(claim: Callable[[], str]) -> str:
    """Call `claim` with growing pauses until it claims a tag; raise StageFailed after `_ATTEMPTS` attempts."""
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

    again = retry_if_exception_type(NotClaimed)
    wait = wait_exponential(multiplier=0.065, exp_base=1.3, max=2.0)
    try:
        return Retrying(retry=again, stop=stop_after_attempt(_ATTEMPTS), wait=wait, reraise=True)(claim)
    except NotClaimed as error:
        message = (
            f"no version number could be claimed in {_ATTEMPTS} attempts: other runs took each, or a killed git left a "
            f"lock (refs/tags/*.lock here or at origin); git says: {error}"
        )
        raise StageFailed(message) from None


def _identity(root: Path) -> list[str]:
    """Return the options that set a default user name and e-mail where git has none."""
    missing = {key: value for key, value in DEFAULT_IDENTITY.items() if not run_git(root, "config", key).text}
    return [word for key, value in missing.items() for word in ("-c", f"{key}={value}")]
