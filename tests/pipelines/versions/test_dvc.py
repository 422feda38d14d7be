"""Every dataset version is pushed to the default remote, also from a workspace, and restored from there."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.versions.dataset_version import checkout_version, make_version
from pipelines.versions.dvc import bring_objects, cache_folder, default_remote, known_pointers, repro_stage
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


def write(root: Path, text: str) -> None:
    (root / "data" / "faces").mkdir(parents=True, exist_ok=True)
    (root / "data" / "faces" / "photo.txt").write_text(text)


def stored(home: Path) -> int:
    return sum(path.is_file() for path in (home.parent / "store").rglob("*"))


@pytest.mark.parametrize("remote", ["folder", "bucket"])
def test_versions_of_checkout_and_workspace_are_restored_from_the_remote(
    home: Path, tmp_path: Path, remote: str
) -> None:
    with s3_server() if remote == "bucket" else nullcontext():
        if remote == "bucket":
            dvc(home, "remote", "add", "-q", "-f", "-d", "store", f"s3://{BUCKET}/dvc")
            git(home, "commit", "-qam", "bucket")
        write(home, "one")
        first = make_version(home, "data/faces", "one photo")
        work = create(home, "run-1").path
        assert default_remote(work) == "store"
        before = len(objects("dvc/")) if remote == "bucket" else stored(home)
        write(work, "two")
        second = make_version(work, "data/faces", "another")
        after = len(objects("dvc/")) if remote == "bucket" else stored(home)
        assert (first.tag, before, second.tag, after) == ("faces-v1", 2, "faces-v2", 4)

        shutil.rmtree(cache_folder(home))
        shutil.rmtree(home / "data" / "faces")
        checkout_version(home, "faces-v2")
        assert (home / "data" / "faces" / "photo.txt").read_text() == "two"
        bring_objects(home, {"faces": str(first.md5)}, tmp_path / "restored")
        assert (tmp_path / "restored" / "faces" / "photo.txt").read_text() == "one"


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


@pytest.mark.parametrize(
    ("code", "raised", "line"),
    [
        ("raise UserError('data/faces: no such folder')", UserError, r"\(exit 2\): data/faces: no such folder$"),
        ("raise StageFailed('the disk is full')", StageFailed, r"\(exit 1\): the disk is full$"),
        ("raise LookupError('no\\nrow')", StageFailed, r"\(exit 1\): LookupError: no row$"),
        ("raise SystemExit(3)", StageFailed, r"\(exit 255\); the reason is above$"),
    ],
)
def test_the_reason_of_a_stage_comes_through_dvc(
    home: Path, project: Path, code: str, raised: type[Exception], line: str
) -> None:
    step = f"""
import sys
sys.path.insert(0, {str(project)!r})
from pipelines import cli
from pipelines.core.errors import StageFailed, UserError
def fail(**options):
    {code}
cli.app = fail
cli.main([])
"""
    (home / "step.py").write_text(step)
    (home / "dvc.yaml").write_text("stages: {train_imr: {cmd: python step.py, deps: [step.py], outs: [out.txt]}}\n")
    with pytest.raises(raised, match=f"stage train_imr failed under DVC {line}"):
        repro_stage(home, "train_imr")


def test_pointers_of_hidden_folders_and_environments_are_not_the_checkouts(tmp_path: Path) -> None:
    for name in ("data/faces.dvc", "venv/lib/one.dvc", ".venv/two.dvc", "data/.old/three.dvc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    assert known_pointers(tmp_path) == ["data/faces.dvc"]
