"""Versions are tags beside the branch, one per content, with unique numbers; any of them can be checked out again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.versions.continuity import check_continues
from pipelines.versions.dataset_version import (
    checkout_version,
    current_version,
    make_version,
    require_dataset,
    restore_present,
)
from pipelines.versions.dvc import dvc, dvc_problem
from pipelines.versions.workspace import clone_of
from tests import processes


def git(folder: Path, *arguments: str) -> str:
    return processes.git(folder, *arguments).strip()


def repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    assert dvc(folder, "init", "-q", capture=True).returncode == 0
    (folder / "code.py").write_text("print()\n")
    processes.commit_all(folder, "start")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repository(tmp_path / "home")


def fill(root: Path, count: int) -> None:
    """A dataset of `count` photos; the same count is the same data."""
    (root / "data" / "faces").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        row = dict.fromkeys(DATASET_SCHEMA.names) | {"image_id": f"{number:064x}", "file_name": f"{number}.jpg"}
        shard = root / "data" / "faces" / f"faces-{number:05d}.parquet"
        if not shard.exists():
            pq.write_table(pa.Table.from_pylist([row], DATASET_SCHEMA), shard)


def test_a_version_is_a_tag_and_the_branch_stays(root: Path) -> None:
    head, index = git(root, "rev-parse", "HEAD"), (root / ".git" / "index").read_bytes()
    fill(root, 2)
    version = make_version(root, "data/faces", "two photos")
    assert (version.tag, version.rows) == ("faces-v1", 2)
    assert git(root, "rev-parse", "HEAD") == head
    assert git(root, "rev-parse", "faces-v1^{commit}^") == head
    assert (root / ".git" / "index").read_bytes() == index
    assert git(root, "cat-file", "-t", "faces-v1") == "tag"
    assert git(root, "show", "faces-v1:code.py") == "print()"
    assert git(root, "show", "faces-v1:data/.gitignore") == "/faces"
    assert current_version(root) == version
    assert make_version(root, root / "data/faces", "again") == version

    fill(root, 3)
    later = make_version(root, "data/faces", "three photos")
    assert (later.tag, later.rows) == ("faces-v2", 3)

    assert checkout_version(root, "faces-v1") == version
    assert len(list((root / "data/faces").iterdir())) == 2
    assert current_version(root) == version
    assert make_version(root, "data/faces", "back") == version
    with pytest.raises(UserError, match="version faces-v7: no such tag; there are faces-v1, faces-v2"):
        checkout_version(root, "faces-v7")

    shutil.rmtree(root / "data/faces")
    restore_present(root)
    assert len(list((root / "data/faces").iterdir())) == 2


def test_missing_data_leaves_the_present_version(root: Path) -> None:
    fill(root, 1)
    make_version(root, "data/faces", "one")
    fill(root, 2)
    second = make_version(root, "data/faces", "two")
    pointer = (root / "data/faces.dvc").read_bytes()
    for file in (root / ".dvc/cache").rglob("*.dir"):
        if second.md5 and second.md5[2:].removesuffix(".dir") not in file.name:
            file.unlink()
    with pytest.raises(UserError, match="version faces-v1: its data cannot be brought to data/faces: "):
        checkout_version(root, "faces-v1")
    assert (root / "data/faces.dvc").read_bytes() == pointer


def test_a_repository_that_cannot_hold_a_version_says_so(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    fill(bare, 1)
    with pytest.raises(UserError, match="not a git repository"):
        make_version(bare, "data/faces", "m")
    git(bare, "init", "-q")
    with pytest.raises(UserError, match="no commit"):
        make_version(bare, "data/faces", "m")
    git(bare, "commit", "-qm", "start", "--allow-empty")
    with pytest.raises(UserError, match="not a DVC repository"):
        make_version(bare, "data/faces", "m")
    assert current_version(bare).tag is None
    assert dvc(bare, "init", "-q", capture=True).returncode == 0
    with pytest.raises(UserError, match="outside the repository"):
        make_version(bare, tmp_path, "m")
    with pytest.raises(StageFailed, match="dvc add in "):
        make_version(bare, "data/absent", "m")


def test_git_needs_no_name(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    fill(root, 1)
    assert make_version(root, "data/faces", "one").tag == "faces-v1"
    assert "dynamicid@localhost" in git(root, "cat-file", "-p", "faces-v1")


def test_clones_that_share_the_cache_never_share_a_number(root: Path, tmp_path: Path) -> None:
    clones = [tmp_path / name for name in "abc"]
    for clone in clones:
        clone_of(root, clone)
    fill(clones[0], 1)
    fill(clones[1], 2)
    fill(clones[2], 2)
    with ThreadPoolExecutor(3) as pool:
        versions = list(pool.map(lambda clone: make_version(clone, "data/faces", "photos"), clones))
    assert {version.tag for version in versions} == {"faces-v1", "faces-v2"}
    assert versions[1].tag == versions[2].tag
    assert git(root, "tag").split() == ["faces-v1", "faces-v2"]
    # The data is in the shared cache, so the checkout can switch to either version, too.
    assert checkout_version(root, str(versions[0].tag)).rows == 1
    assert checkout_version(clones[0], str(versions[1].tag)).rows == 2


def test_a_clone_with_a_separate_cache_publishes_nothing(root: Path, tmp_path: Path) -> None:
    clone = tmp_path / "mine"
    git(tmp_path, "clone", "-q", str(root), str(clone))
    fill(clone, 1)
    assert make_version(clone, "data/faces", "one").tag == "faces-v1"
    assert git(root, "tag") == ""


def test_the_command_ingests_and_versions(checkout: Path, awkward_photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "clone"
    # Runs of other tests may have left versions in the shared checkout.
    git(tmp_path, "clone", "-q", "--no-tags", str(checkout), str(root))

    def ingest(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.cli", "ingest", *arguments]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    done = ingest(str(awkward_photos))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["version"]["tag"], summary["version"]["rows"]) == (10, "faces-v1", 10)
    assert git(root, "status", "--porcelain") == "?? data/"
    again = json.loads(ingest(str(awkward_photos)).stdout)
    assert (again["new_rows"], again["version"]) == (0, summary["version"])

    outside = ingest(str(awkward_photos), "--out", str(tmp_path / "elsewhere" / "faces"))
    assert outside.returncode == 0
    assert json.loads(outside.stdout)["version"] is None
    assert "no version" in outside.stderr
    refused = ingest(str(awkward_photos), "--out", str(tmp_path / "elsewhere" / "faces"), "--version")
    assert refused.returncode == 2
    assert "not in a DVC repository" in refused.stderr
    assert ingest(str(tmp_path / "nowhere"), "--no-version").returncode == 2


def test_photos_of_no_earlier_version_are_not_called_the_next_one_unasked(root: Path) -> None:
    fill(root, 2)
    check_continues(root, "data/faces")
    make_version(root, "data/faces", "two")
    fill(root, 3)
    check_continues(root, "data/faces")
    make_version(root, "data/faces", "three")
    shutil.rmtree(root / "data" / "faces")
    (root / "data" / "faces.dvc").unlink()
    fill(root, 9)
    for number in range(3):
        (root / "data" / "faces" / f"faces-{number:05d}.parquet").unlink()
    with pytest.raises(UserError, match=r"none of its 6 photos is in faces-v2, faces-v1, so .* --accept-unrelated"):
        check_continues(root, "data/faces")


def test_a_dataset_that_cannot_be_compared_continues_the_version_that_its_pointer_names(root: Path) -> None:
    fill(root, 1)
    make_version(root, "data/faces", "one")
    shutil.rmtree(root / ".dvc" / "cache")
    check_continues(root, "data/faces")
    (root / "data" / "faces.dvc").unlink()
    check_continues(root, "data/faces")
    fill(root, 2)
    with pytest.raises(UserError, match=r"in an earlier version \(faces-v1: the data is not here; `dvc pull`"):
        check_continues(root, "data/faces")


def test_data_that_cannot_be_had_is_named(root: Path) -> None:
    with pytest.raises(UserError, match=r"data/faces: no photos, and no data/faces\.dvc .*`dynamicid ingest DIR`"):
        require_dataset(root)
    fill(root, 2)
    made = make_version(root, "data/faces", "two")
    assert made.md5
    shutil.rmtree(root / "data" / "faces")
    held = next(file for file in (root / ".dvc" / "cache").rglob("*") if file.is_file() and file.suffix != ".dir")
    held.rename(root / "away")
    with pytest.raises(UserError, match=r"data/faces \(1 of its files\) is missing in .*cache; there is no DVC remote"):
        require_dataset(root)
    shutil.rmtree(root / ".dvc" / "cache")
    assert dvc(root, "remote", "add", "-d", "team", str(root.parent / "team"), capture=True).returncode == 0
    missing = rf"data/faces \({made.md5[:12]}\) is missing in .*cache; DVC remote 'team': .*data/faces"
    with pytest.raises(StageFailed, match=missing):
        require_dataset(root)


@pytest.mark.parametrize(
    ("stderr", "stdout", "problem"),
    [
        ("ERROR: Checkout failed for following targets:\ndata/faces\nIs your cache up to date?\n<https://x>\n", "a",
         "Checkout failed for following targets: data/faces"),
        ("WARNING: old\nERROR: first\nERROR: second", "done", "first"),
        ("WARNING: Some files are missing:\nabc", "", "WARNING: Some files are missing:"),
        ("", "plain", "plain"),
        ("\nHaving any troubles? Hit us up\n", "", "it ended with exit code 3 and no message"),
    ],
)  # fmt: skip
def test_the_first_error_of_dvc_is_one_line_with_what_it_lists(stderr: str, stdout: str, problem: str) -> None:
    assert dvc_problem(subprocess.CompletedProcess([], 3, stdout, stderr)) == problem
