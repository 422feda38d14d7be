"""Make versions of a dataset folder: DVC stores the data, a git tag `<folder>-vN` names it.

A tag's commit is HEAD plus the folder's `.dvc` file; the branch does not move. The same data always has the same
version, even where it is added again or in another clone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipelines.core.chain import FACES
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import write_atomically
from pipelines.core.row_schemas import DATASET_SCHEMA, count_rows
from pipelines.versions.dvc import bring_data, dvc, dvc_problem, home_of, not_brought, pointed_hash, push_data
from pipelines.versions.forgotten import LEDGER, describe_entries, gate, refuse_forgotten
from pipelines.versions.git import git, in_repository
from pipelines.versions.git_tags import (
    MACHINES,
    check_repository,
    claim_tag,
    commit_files,
    fetch_tags,
    is_remote,
    numbered_tags,
    push_tag,
    read_at,
    retry_claim,
)
from pipelines.versions.interrupted import mend_interrupted

_ROWS = re.compile(r"^Rows: (\d+)$", re.MULTILINE)
_LOCK_ATTEMPTS = 20


@dataclass(frozen=True)
class DatasetVersion:
    """A version: tag, DVC's hash of the folder, number of photos; None where unknown (no tag, no `.dvc`, no data)."""

    tag: str | None
    md5: str | None
    rows: int | None


def known_versions(root: Path, folder: str = FACES) -> list[str]:
    """Return the tags of all versions of `folder`, the oldest first."""
    return [name for _, name in numbered_tags(root, _prefix(folder))]


def fetch_versions(root: Path, folder: str = FACES) -> None:
    """Fetch the versions that were made elsewhere: in the checkout of a workspace, or on other machines."""
    for place in _places(root):
        fetch_tags(root, _prefix(folder), place)


def _places(root: Path) -> list[str]:
    """Return the git remotes at which versions are made, the one that all machines reach first."""
    return [*([MACHINES] if is_remote(root) else []), *(["origin"] if home_of(root) is not None else [])]


def current_version(root: Path, folder: str = FACES) -> DatasetVersion:
    """Return the version that the `.dvc` file of `folder` names."""
    md5 = _md5(root, folder)
    if md5 is None:
        return DatasetVersion(None, None, _count(root / folder))
    tag = tag_of(root, md5, folder)
    return DatasetVersion(tag, md5, rows_of(root, tag) if tag else _count(root / folder))


def pointer_of(root: Path, md5: str, folder: str = FACES) -> bytes:
    """Return the `.dvc` file of the dataset version whose data has DVC's hash `md5`.

    Raises StageFailed where the present one names another version, and no tag has that one.
    """
    tag = tag_of(root, md5, folder)
    if tag is None:
        raise StageFailed(
            f"{folder}.dvc: names another dataset than the one with hash {md5[:12]} that the results were made from, "
            "and no tag of this checkout has that one; `dynamicid repro` makes the results from the present dataset"
        )
    return read_at(root, [tag], f"{folder}.dvc")[tag]


def make_version(root: Path, folder: Path | str, message: str) -> DatasetVersion:
    """Add `folder` to DVC and return its version: the tag that the same data already has, else a new tag.

    Raises UserError where `root` is not a git repository with a commit, or not a DVC repository, or where `folder` is
    outside of it; StageFailed where it holds photos of the forgotten, or where DVC or git fails.
    """
    root = root.resolve()
    check_repository(root)
    if not (root / ".dvc" / "config").is_file():
        raise UserError(f"{root}: not a DVC repository, so no version can be kept; `dvc init`, or --no-version")
    target = (root / folder).resolve()
    if not target.is_relative_to(root) or target == root:
        raise UserError(f"{target}: is outside the repository {root}; choose a folder in it, or --no-version")
    name = target.relative_to(root).as_posix()
    mend_interrupted(root, name)
    refuse_forgotten(target, content=True)
    track(root, name)
    version = publish_version(root, name, message)
    push_data(root, f"{name}.dvc")
    return version


def publish_version(root: Path, folder: str, message: str) -> DatasetVersion:
    """Tag the version that the `.dvc` file of `folder` describes.

    A clone that shares the DVC cache of its local origin, such as the workspace of a run, also pushes the tag to that
    origin, which has the data. So does a checkout of one of several machines, to the repository that they share. Clones
    that publish at the same time get different numbers for different data.
    """
    md5 = _md5(root, folder)
    if md5 is None:
        raise UserError(f"{root / folder}.dvc: no such file; `dvc add {folder}` writes it")
    prefix = _prefix(folder)
    places = _places(root)
    rows = _count(root / folder)
    text = f"{message.strip()}\n\nRows: {rows}" if rows is not None else message.strip()

    def claim() -> str:
        for place in places:
            fetch_tags(root, prefix, place)
        if tag := tag_of(root, md5, folder):
            for place in places:
                push_tag(root, tag, place)
            return tag
        pointer = Path(f"{folder}.dvc")
        ignore = pointer.parent / ".gitignore"
        # Every version holds the list of the forgotten: a clone that checks out an older one needs it.
        kept = (pointer, ignore, Path(LEDGER))
        files = {path.as_posix(): (root / path).read_bytes() for path in kept if (root / path).is_file()}
        tag = claim_tag(root, prefix, commit_files(root, files, text), text, push=next(iter(places), None))
        for place in places[1:]:
            push_tag(root, tag, place)
        return tag

    return DatasetVersion(retry_claim(claim), md5, rows)


def checkout_version(root: Path, tag: str, folder: str = FACES) -> DatasetVersion:
    """Check version `tag` out into `folder`, from DVC's cache or its remote.

    Raises UserError where there is no such version or its data cannot be fetched; `folder` then keeps its version.
    """
    root = root.resolve()
    check_repository(root)
    fetch_versions(root, folder)
    known = known_versions(root, folder)
    pointer = root / f"{folder}.dvc"
    content = read_at(root, [tag], f"{folder}.dvc").get(tag) if tag in known else None
    if content is None:
        raise UserError(f"version {tag}: no such tag; there are {', '.join(known) or 'none (`dynamicid ingest`)'}")
    content = _without_forgotten(root, tag, content)
    before = pointer.read_bytes() if pointer.is_file() else None
    write_atomically(pointer, content)
    if problem := bring_data(root, f"{folder}.dvc"):
        if before is None:
            pointer.unlink()
        else:
            write_atomically(pointer, before)
            bring_data(root, f"{folder}.dvc")
        raise not_brought(root)(f"version {tag}: its data cannot be brought to {folder}: {problem}")
    md5 = _md5(root, folder)
    whole = md5 == pointed_hash(read_at(root, [tag], f"{folder}.dvc")[tag])
    return DatasetVersion(tag, md5, rows_of(root, tag) if whole else _count(root / folder))


def _without_forgotten(root: Path, tag: str, content: bytes) -> bytes:
    """Return the `.dvc` file of a version without the photos forgotten since then, and print what was left out."""
    md5 = pointed_hash(content) or ""
    known = gate(root)
    entries = known.of_dataset(md5)
    if not entries:
        return content
    left = known.left_of(md5)
    if left is None:
        raise UserError(f"version {tag}: nothing is left of it; {describe_entries(entries)}")
    print(f"version {tag}: brought back without what was {describe_entries(entries)}", file=sys.stderr)
    tree = yaml.safe_load(content)
    tree["outs"][0] = {"md5": left, "hash": "md5", "path": tree["outs"][0]["path"]}
    return yaml.safe_dump(tree, sort_keys=False).encode()


def restore_present(root: Path, folder: str = FACES) -> None:
    """Restore `folder` where only its `.dvc` file exists, so that an ingest adds to the data it had."""
    missing = (root / f"{folder}.dvc").is_file() and not (root / folder).exists()
    if missing and (problem := bring_data(root, f"{folder}.dvc")):
        raise not_brought(root)(
            f"{folder}.dvc names data that is not here and cannot be brought back ({problem}); fetch it with "
            f"`dvc pull`, or delete {folder}.dvc to begin a new dataset"
        )


def require_dataset(root: Path, folder: str = FACES) -> None:
    """Restore `folder` as `restore_present`; raise UserError where there is nothing to restore either."""
    restore_present(root, folder)
    if not (root / folder).exists():
        raise UserError(
            f"{folder}: no photos, and no {folder}.dvc that names any; `dynamicid ingest DIR` adds photos, `dynamicid "
            "dataset checkout latest` brings the latest version"
        )


def track(root: Path, folder: str) -> None:
    """Add a folder to DVC: its data to the cache, its hash to `<folder>.dvc`."""
    from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_fixed

    # Another DVC command may hold the lock of this repository.
    retrying = Retrying(
        retry=retry_if_result(lambda done: done.returncode and "lock" in done.stderr.lower()),
        stop=stop_after_attempt(_LOCK_ATTEMPTS),
        wait=wait_fixed(1.0),
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
    )
    done = retrying(dvc, root, "add", "--", folder, capture=True)
    if done.returncode:
        raise StageFailed(f"dvc add in {root}: {dvc_problem(done)}")


def _prefix(folder: str) -> str:
    return f"{Path(folder).name}-v"


def _md5(root: Path, folder: str) -> str | None:
    pointer = root / f"{folder}.dvc"
    if not pointer.is_file():
        return None
    md5 = pointed_hash(pointer.read_bytes())
    if md5 is None:
        mend_interrupted(root, folder)
        if not pointer.is_file():
            return None
        raise UserError(f"{pointer}: no hash in it; expected a file written by `dvc add`")
    return md5


def tag_of(root: Path, md5: str, folder: str = FACES) -> str | None:
    """Return the tag of the dataset version whose data has DVC's hash `md5`, or None where it has no tag."""
    return next(iter(versions_of_data(root, [md5], folder)), None) if in_repository(root) else None


def versions_of_data(root: Path, hashes: Collection[str], folder: str = FACES) -> list[str]:
    """Return the versions whose data has one of DVC's `hashes`, the oldest first."""
    tags = known_versions(root, folder)
    contents = read_at(root, tags, f"{folder}.dvc") if tags else {}
    return [tag for tag, content in contents.items() if pointed_hash(content) in hashes]


def rows_of(root: Path, tag: str) -> int | None:
    """Return the number of rows that the message of a version's tag states, or None."""
    match = _ROWS.search(git(root, "for-each-ref", "--format=%(contents)", f"refs/tags/{tag}"))
    return int(match.group(1)) if match else None


def _count(folder: Path) -> int | None:
    return count_rows(folder, DATASET_SCHEMA) if any(folder.glob("*.parquet")) else None
