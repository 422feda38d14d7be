"""Every dataset version is copied to the default remote, also from a run's workspace, and comes back from there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed
from pipelines.versions.dataset_version import checkout_version, make_version
from pipelines.versions.dvc import bring_objects, cache_folder, default_remote
from pipelines.versions.git_tags import numbered_tags
from pipelines.versions.workspace import create
from tests.pipelines.object_store import BUCKET, objects, s3_server
from tests.processes import commit_all, dvc, git


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A repository whose remote is a folder beside it, given relative to the repository."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "store").mkdir()
    git(folder, "init", "-q", "-b", "main")
    dvc(folder, "init", "-q")
    dvc(folder, "remote", "add", "-q", "-d", "store", "../store")
    (folder / ".gitignore").write_text("/data/faces\n/data/.gitignore\n/.dynamicid/\n")
    commit_all(folder, "start")
    return folder


@pytest.fixture
def home_of_s3(home: Path) -> Iterator[Path]:
    """The same repository with a bucket for a remote."""
    with s3_server():
        dvc(home, "remote", "add", "-q", "-f", "-d", "store", f"s3://{BUCKET}/dvc")
        git(home, "commit", "-qam", "bucket")
        yield home


def write(root: Path, text: str) -> None:
    (root / "data" / "faces").mkdir(parents=True, exist_ok=True)
    (root / "data" / "faces" / "photo.txt").write_text(text)


def stored(home: Path) -> int:
    return sum(path.is_file() for path in (home.parent / "store").rglob("*"))


def both_come_back(home: Path, first: str, out: Path) -> None:
    """Lose the cache and the data, then fetch the second version into place and the first one into `out`."""
    shutil.rmtree(cache_folder(home))
    shutil.rmtree(home / "data" / "faces")
    checkout_version(home, "faces-v2")
    assert (home / "data" / "faces" / "photo.txt").read_text() == "two"
    bring_objects(home, {"faces": first}, out)
    assert (out / "faces" / "photo.txt").read_text() == "one"


def test_versions_of_checkout_and_workspace_are_in_the_remote_and_come_back(home: Path, tmp_path: Path) -> None:
    write(home, "one")
    first = make_version(home, "data/faces", "one photo")
    assert (first.tag, stored(home)) == ("faces-v1", 2)
    work = create(home, "run-1").path
    assert default_remote(work) == "store"
    write(work, "two")
    assert (make_version(work, "data/faces", "another").tag, stored(home)) == ("faces-v2", 4)

    both_come_back(home, str(first.md5), tmp_path / "brought")


def test_versions_are_in_a_bucket_and_come_back(home_of_s3: Path, tmp_path: Path) -> None:
    home = home_of_s3
    write(home, "one")
    first = make_version(home, "data/faces", "one photo")
    assert (first.tag, len(objects("dvc/"))) == ("faces-v1", 2)
    work = create(home, "run-1").path
    write(work, "two")
    assert (make_version(work, "data/faces", "another").tag, len(objects("dvc/"))) == ("faces-v2", 4)

    both_come_back(home, str(first.md5), tmp_path / "brought")


def test_a_remote_that_cannot_be_reached_fails_after_the_version_is_made(home: Path) -> None:
    (home.parent / "store").rmdir()
    (home.parent / "store").write_text("not a folder")
    write(home, "one")
    with pytest.raises(StageFailed, match=r"data/faces\.dvc: kept here, but not copied to the DVC remote 'store'"):
        make_version(home, "data/faces", "one photo")
    assert [name for _, name in numbered_tags(home, "faces-v")] == ["faces-v1"]
    (home.parent / "store").unlink()
    assert make_version(home, "data/faces", "one photo").tag == "faces-v1"
    assert stored(home) == 2
