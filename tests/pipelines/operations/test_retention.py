"""Clean-up removes only what is old, saved elsewhere and not in use."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from pipelines.core.files import mark_used
from pipelines.core.locks import IN_USE, share, staying
from pipelines.core.sections.operations import Keeping
from pipelines.operations.retention import Item, remove, survey
from pipelines.versions.state import VARIABLE
from tests.processes import dvc, git

DAYS = Keeping(workspaces_days=14, checkpoints_days=14, caches_days=30)


def age(path: Path, days: float) -> None:
    moment = time.time() - days * 86400
    for one in (*path.rglob("*"), path):
        os.utime(one, (moment, moment), follow_symlinks=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "start")
    for run in ("saved", "busy", "young"):
        git(tmp_path, "update-ref", f"refs/exps/aa/bb/{run}", "HEAD")
    for run in ("saved", "busy", "young", "unsaved"):
        folder = tmp_path / ".dynamicid" / "runs" / run
        (folder / ".dynamicid" / "resume" / "train_imr").mkdir(parents=True)
        (folder / ".dynamicid" / "workspace.json").write_text(json.dumps({"run": run}))
        (folder / "result.txt").write_text("x" * 1000)
        age(folder, 1 if run == "young" else 40)
    return tmp_path


def named(items: list[Item]) -> dict[str, str | None]:
    return {item.path.name: item.kept for item in items}


def test_old_saved_idle_workspaces_are_removed(root: Path) -> None:
    with FileLock(root / ".dynamicid" / "runs" / "busy" / ".dynamicid" / "resume" / "train_imr" / "key.lock"):
        age(root / ".dynamicid" / "runs" / "busy", 40)
        found = named(survey(root, DAYS))
        assert found["saved"] is None
        assert found["busy"] == "a process is using it"
        assert str(found["young"]).startswith("used 1.0 days ago")
        assert str(found["unsaved"]).startswith("its run was not saved")
        assert named(survey(root, DAYS, unsaved=True))["unsaved"] is None
        count, size = remove(survey(root, DAYS))
    assert (count, size >= 1000) == (1, True)
    assert sorted(path.name for path in (root / ".dynamicid" / "runs").iterdir()) == ["busy", "unsaved", "young"]


def test_a_workspace_in_which_a_command_works_stays_whatever_its_state_is(root: Path) -> None:
    runs = root / ".dynamicid" / "runs"
    listed = survey(root, DAYS)
    with staying(runs / "saved"):
        age(runs / "saved", 40)
        assert named(survey(root, DAYS))["saved"] == "a process is using it"
        remove(item for item in listed if item.path.name == "saved")  # listed before the command began
        assert (runs / "saved" / "result.txt").is_file()
    (runs / "saved" / IN_USE).unlink()
    remove(listed)
    assert not (runs / "saved").exists()


def test_a_temporary_workspace_is_removed_by_its_age_alone(root: Path) -> None:
    for run in ("unsaved", "young"):
        folder = root / ".dynamicid" / "runs" / run
        (folder / ".dynamicid" / "workspace.json").write_text(json.dumps({"run": run, "temporary": True}))
        age(folder, 1 if run == "young" else 40)
    found = named(survey(root, DAYS))
    assert found["unsaved"] is None
    assert found["young"] is not None


def test_checkpoints_of_a_running_training_and_young_ones_stay(root: Path) -> None:
    for key in ("old", "running", "fresh"):
        folder = root / ".dynamicid" / "resume" / "train_anchoring" / key
        (folder / "step-00000010").mkdir(parents=True)
        (folder / "step-00000010" / "model.safetensors").write_bytes(b"w" * 64)
        age(folder, 0 if key == "fresh" else 20)
    with FileLock(root / ".dynamicid" / "resume" / "train_anchoring" / "running.lock"):
        found = {item.path.name: item.kept for item in survey(root, DAYS) if item.kind == "checkpoint"}
        assert found["old"] is None
        assert found["running"] == "a process is training it"
        assert str(found["fresh"]).startswith("written 0.0 days ago")
        remove(survey(root, DAYS))
    left = root / ".dynamicid" / "resume" / "train_anchoring"
    assert sorted(path.name for path in left.iterdir() if path.is_dir()) == ["fresh", "running"]


@pytest.mark.parametrize("folder", ["preprocess", "evaluation"])
def test_cached_files_are_removed_by_their_last_use(root: Path, folder: str) -> None:
    for name, days in (("old.arrow", 31.0), ("used.arrow", 2.0)):
        cached(root, f"{folder}/{name}", days)
    remove(survey(root, DAYS))
    assert [path.name for path in (root / ".dynamicid" / folder).glob("*.arrow")] == ["used.arrow"]


def cached(root: Path, name: str, days: float, size: int = 4) -> Path:
    file = root / ".dynamicid" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"1" * size)
    age(file, days)
    return file


def test_a_store_of_records_goes_as_a_whole(root: Path) -> None:
    for name, days in (("store.json", 40.0), ("keys.bin", 40.0), ("records.bin", 40.0)):
        cached(root, f"cache/latents/old/{name}", days)
        cached(root, f"cache/latents/used/{name}", 1.0 if name == "keys.bin" else days)
    found = {item.path.name: item for item in survey(root, DAYS) if item.kind == "cache"}
    assert sorted(found) == ["old", "used"]
    assert (found["old"].size, found["old"].kept) == (12, None)
    remove(survey(root, DAYS))
    assert sorted(path.name for path in (root / ".dynamicid" / "cache" / "latents").rglob("*")) == [
        "keys.bin",
        "records.bin",
        "store.json",
        "used",
    ]


def test_a_cell_of_a_comparison_goes_as_a_whole(root: Path) -> None:
    for name, days in (("cost.json", 40.0), ("adapter/config.json", 40.0)):
        cached(root, f"compare/trained/old/{name}", days)
        cached(root, f"compare/trained/used/{name}", 1.0 if name == "cost.json" else days)
    assert sorted(item.path.name for item in survey(root, DAYS) if item.kind == "cache") == ["old", "used"]
    remove(survey(root, DAYS))
    left = sorted(path.name for path in (root / ".dynamicid" / "compare" / "trained").rglob("*.json"))
    assert left == ["config.json", "cost.json"]


def test_above_the_limit_of_size_what_was_used_last_stays(root: Path) -> None:
    files = [cached(root, f"preprocess/{days}.arrow", days, 400) for days in (1, 2, 3, 4)]
    cached(root, "preprocess/.format.json", 90)
    limited = DAYS.model_copy(update={"caches_gb": 1e-6})
    assert [item.kept is None for item in survey(root, limited) if item.kind == "cache"] == [False, False, True, True]
    mark_used(files[3])
    remove(survey(root, limited))
    left = sorted(path.name for path in (root / ".dynamicid" / "preprocess").iterdir())
    assert left == [".format.json", ".lock", "1.arrow", "4.arrow"]


def test_what_a_running_stage_uses_stays(root: Path) -> None:
    file, store = cached(root, "preprocess/a.arrow", 90), cached(root, "cache/latents/a/store.json", 90)
    listed = survey(root, DAYS)
    assert [item.kept for item in listed if item.kind == "cache"] == [None, None]
    with share(root / ".dynamicid" / "preprocess" / ".lock", RuntimeError()):
        kept = {item.path.name: item.kept for item in survey(root, DAYS) if item.kind == "cache"}
        assert kept == {"a": None, "a.arrow": "a process is using it"}
        remove(listed)  # made before the stage started
    assert file.exists()
    assert not store.exists()


def test_a_workspace_and_another_folder_of_the_state_are_cleaned_too(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "fast"))
    (tmp_path / "fast" / "preprocess").mkdir(parents=True)
    (tmp_path / "fast" / "preprocess" / "a.arrow").write_bytes(b"1")
    (item,) = (item for item in survey(root, DAYS.model_copy(update={"caches_days": 0})) if item.kind == "cache")
    assert (item.path, item.kept) == (tmp_path / "fast" / "preprocess" / "a.arrow", None)


def test_surveying_changes_nothing(root: Path) -> None:
    before = sorted(path.as_posix() for path in root.rglob("*"))
    survey(root, DAYS, unsaved=True)
    after = sorted(path.as_posix() for path in root.rglob("*") if path.suffix != ".lock")
    assert after == [path for path in before if not path.endswith(".lock")]


def test_unfinished_objects_of_cache_remote_and_artefacts_are_removed_after_a_day(root: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    dvc(root, "init", "-q")
    dvc(root, "remote", "add", "-d", "store", str(remote))
    for store in (root / ".dvc" / "cache", remote):
        folder = store / "files" / "md5" / "eb"
        folder.mkdir(parents=True)
        for name in (".old.tmp", ".young.tmp", "whole", "list.dir.old.tmp"):
            (folder / name).write_text("some bytes")
        age(folder / ".old.tmp", 2)
        age(folder / "list.dir.old.tmp", 2)
        age(folder / "whole", 2)
    uploads = root / "mlartifacts" / "run" / "artifacts"
    uploads.mkdir(parents=True)
    for name, days in ((".artifact.uploading.k2x", 2), (".artifact.uploading.young", 0), ("page.html", 2)):
        (uploads / name).write_text("half a page")
        age(uploads / name, days)
    items = [item for item in survey(root, DAYS) if item.kind == "unfinished"]
    assert len(items) == 6 + 2
    assert remove(items)[0] == 4 + 1
    assert sorted(path.name for path in uploads.iterdir()) == [".artifact.uploading.young", "page.html"]
    left = sorted(path.name for path in tmp_path.rglob("files/md5/eb/*"))
    assert left == [".young.tmp", ".young.tmp", "whole", "whole"]
