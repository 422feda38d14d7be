"""Forget a person on what the stages themselves wrote: not 64 bytes of their pictures are left in any file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.processes import SMALL_CHAIN, dvc, dynamicid, git

from .windows import Windows

pytestmark = pytest.mark.timeout(3600)
# demo-00000 is held out with the shares of SMALL_CHAIN, so that reports show her.
ANNA, BERT = "demo-00000", "demo-00001"
PEOPLE = 8


def pictures(root: Path, wanted: Callable[[str], bool]) -> Iterator[bytes]:
    """Yield people's pictures as they came and as they were processed."""
    for folder, column in (("faces", "image"), ("processed", "image")):
        for file in sorted((root / "data" / folder).glob("*.parquet")):
            for row in pq.read_table(file, columns=["identity", column]).to_pylist():
                if row[column] and wanted(row["identity"]):
                    yield row[column]


def files_of(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def make(checkout: Path, folder: Path, stages: tuple[str, ...]) -> Path:
    """Make a checkout whose stages ran on drawn people, with a remote, exports, a workspace and an inbox."""
    root = shutil.copytree(checkout, folder / "dynamicid")
    dynamicid("configure", "--profile", "tiny", *(word for one in SMALL_CHAIN for word in ("--set", one)), cwd=root)
    for section in ("train_anchoring", "train_imr"):
        dynamicid("configure", "--set", f"{section}.steps=2", cwd=root)
    dvc(root, "remote", "add", "-d", "store", str(folder / "remote"))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "parameters and remote")
    photos = root / ".dynamicid" / "photos"
    each = "35" if "evaluate" in stages else "5"  # an evaluation needs photos in several motions
    dynamicid("synthesize", "--identities", str(PEOPLE), "--photos", each, "--out", photos, cwd=root)
    dynamicid("ingest", photos, cwd=root)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "data")
    recorded = ("--record",) if len(stages) > 2 else ("--no-record",)
    dynamicid("repro", *stages, *recorded, cwd=root)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "results")
    dvc(root, "push", "-q")
    for layout in ("variface", "webdataset"):
        dynamicid("export", "--layout", layout, "--out", folder / layout, cwd=root)
    dynamicid("export", "--layout", "variface", "--identity", BERT, "--out", folder / "bert", cwd=root)
    work = dynamicid("workspace", "create", "--run-id", "one", cwd=root).stdout.strip()
    dvc(Path(work), "checkout", "-q", "data/faces.dvc", *stages)
    batch = root / ".dynamicid" / "inbox" / "monday"
    shutil.copytree(photos / ANNA, batch / "somebody")
    shutil.copytree(photos / BERT, batch / BERT)
    (batch / "_READY").touch()
    for step in ("take", "done"):
        dynamicid("inbox", step, "--run-id", "r", "--inbox", root / ".dynamicid" / "inbox", cwd=root)
    return root


def check(root: Path, folder: Path, *more: str) -> None:
    """Forget Anna and search what is left; forget again; and check that nobody else lost anything."""
    theirs, others = list(pictures(root, ANNA.__eq__)), list(pictures(root, ANNA.__ne__))
    berts = list(pictures(root, BERT.__eq__))
    assert len(theirs) >= 8
    # A plain background may give the same bytes in pictures of several people: those are not the person's.
    windows, same = Windows(theirs, others), Windows(berts, theirs)
    places = [folder]
    before = windows.files_with(places)
    for place in ("data/faces/", "data/processed/", ".dvc/cache/", ".dynamicid/preprocess/", ".dynamicid/photos/"):
        assert any(f"dynamicid/{place}" in file for file in before), place
    assert any(".arrow" in file for file in before), "slices, as preprocessing writes them"
    kept = files_of(folder / "bert")

    named = dynamicid("forget", "--identity", ANNA, cwd=root)
    report = json.loads(named.stdout)
    assert {Path(copy["folder"]).name for copy in report["copies"]} == {"variface", "webdataset", *more}
    assert report["remaining"] == []
    copies = tuple(copy["folder"] for copy in report["copies"])
    assert [file for file in windows.files_with(places) if not file.startswith(copies)] == []

    deleted = json.loads(dynamicid("forget", "--identity", ANNA, "--delete-copies", cwd=root).stdout)
    assert sorted(copy["folder"] for copy in deleted["copies"]) == sorted(copies)
    assert windows.files_with(places) == []
    assert files_of(folder / "bert") == kept
    assert same.files_with([root / "data"])
    assert any("/inbox/_done/" in file for file in same.files_with([root / ".dynamicid"])), "other people's photos stay"
    last = dynamicid("forget", "--identity", ANNA, cwd=root)
    assert "nothing is left to forget: forgotten since" in last.stderr
    assert not (root / ".dynamicid" / "forgetting.json").exists()


def test_after_preprocessing_nothing_of_a_person_is_left(checkout: Path, tmp_path: Path) -> None:
    check(make(checkout, tmp_path, ("validate", "preprocess")), tmp_path)


@pytest.mark.nightly
def test_after_a_whole_chain_nothing_of_a_person_is_left(checkout: Path, tmp_path: Path) -> None:
    """Also with the caches of both trainings, a report, a curated set, a restored run, and MLflow's artefacts."""
    stages = ("validate", "preprocess", "validate_processed", "train_anchoring", "train_imr", "evaluate")
    root = make(checkout, tmp_path, stages)
    dynamicid("register", "--accept-refusal", cwd=root)
    dynamicid("curate", root / ".dynamicid" / "photos", "--labels", "--out", tmp_path / "curated", cwd=root)
    dynamicid("workspace", "save", "--run-id", "one", cwd=root)
    dynamicid("workspace", "restore", "one", "--out", tmp_path / "restored", cwd=root)
    check(root, tmp_path, "curated", "restored")
