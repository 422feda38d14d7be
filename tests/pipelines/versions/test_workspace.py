"""A run's workspace is isolated, resumable, saved as a DVC experiment, and restored so that no stage must run again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import staying
from pipelines.versions import workspace
from pipelines.versions.dvc import cache_folder, dvc, stage_environment
from pipelines.versions.workspace import all_workspaces, create, restore, run_name, save
from tests.processes import commit_all, dynamicid, git

_DVC_YAML = """
stages:
  double:
    cmd: python double.py
    deps: [double.py, data/number]
    params: [factor]
    outs: [result.txt]
"""
_SCRIPT = """
import re, pathlib
factor = int(re.search(r"factor: (\\d+)", pathlib.Path("params.yaml").read_text()).group(1))
pathlib.Path("result.txt").write_text(str(factor * int(pathlib.Path("data/number/n.txt").read_text())))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    dvc(folder, "init", "-q")
    (folder / "dvc.yaml").write_text(_DVC_YAML)
    (folder / "double.py").write_text(_SCRIPT)
    (folder / "params.yaml").write_text("factor: 2\n")
    with (folder / ".gitignore").open("a") as handle:
        handle.write("/.dynamicid/\n/result.txt\n/data/number\n/data/.gitignore\n")
    commit_all(folder, "start")
    return folder


def add_data(folder: Path, number: int = 21) -> None:
    """Add a dataset that git does not know yet, as `dynamicid ingest` does inside a workspace."""
    (folder / "data" / "number").mkdir(parents=True)
    (folder / "data" / "number" / "n.txt").write_text(str(number))
    assert dvc(folder, "add", "-q", "data/number", capture=True).returncode == 0


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_of_a_checkout_that_was_copied_is_saved_there(home: Path, tmp_path: Path, kept: bool) -> None:
    made = create(home, "run-a").path
    add_data(made)
    assert dvc(made, "repro", "-q", capture=True).returncode == 0
    new = tmp_path / "new place"
    shutil.copytree(home, new, symlinks=True)
    if not kept:
        shutil.rmtree(home)
    assert save(new, "run-a") == "run-a"
    assert "run-a" in git(new, "for-each-ref", "refs/exps")
    assert cache_folder(new / ".dynamicid" / "runs" / "run-a") == new / ".dvc" / "cache"
    assert home.exists() == kept
    if kept:
        assert git(home, "for-each-ref", "refs/exps") == "", "the other checkout stays as it was"
    assert (restore(new, "run-a", tmp_path / "restored") / "result.txt").read_text() == "42"


def test_a_cache_that_a_group_shares_stays_so_in_workspaces(home: Path, tmp_path: Path) -> None:
    for setting in (("dir", str(tmp_path / "cache")), ("shared", "group"), ("type", "symlink")):
        assert dvc(home, "config", f"cache.{setting[0]}", setting[1], capture=True).returncode == 0
    made = create(home, "run-a").path
    add_data(made)
    folders = [path for path in (tmp_path / "cache" / "files").rglob("*") if path.is_dir()]
    assert folders
    assert all(path.stat().st_mode & 0o020 for path in folders), "colleagues can add to the same folders"
    linked = made / "data" / "number" / "n.txt"
    assert linked.is_symlink()
    assert linked.resolve().is_relative_to(tmp_path / "cache")


def test_what_a_killed_experiment_of_dvc_left_is_known(home: Path) -> None:
    (home / "double.py").write_text("import os, signal\nos.killpg(0, signal.SIGKILL)\n")
    add_data(home)
    (home / ".gitignore").write_text("/.dynamicid/\n/result.txt\n/data/number\n")
    commit_all(home, "a stage that kills its experiment")
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp"]
    assert (
        subprocess.run(command, cwd=home, env=stage_environment(), start_new_session=True, check=False).returncode < 0
    )
    (left,) = all_workspaces(home)
    assert left.is_relative_to(home / ".dvc" / "tmp" / "exps")
    assert (left / "data" / "number" / "n.txt").is_file()


def test_a_run_without_a_workspace_or_results_is_named(home: Path) -> None:
    with pytest.raises(UserError, match=r"run-a: it has no workspace in .*home; `dynamicid workspace create`"):
        save(home, "run-a")
    assert not (home / ".dynamicid" / "runs").exists()
    create(home, "run-a")
    with pytest.raises(StageFailed, match=r"data/number.* does not exist; a run is saved when all its stages have run"):
        save(home, "run-a")


def test_a_retry_finds_the_same_workspace_and_its_work(home: Path) -> None:
    first = create(home, "manual__2026-01-01T00:00:00+00:00")
    (first.path / "half-done").write_text("kept")
    again = create(home, "manual__2026-01-01T00:00:00+00:00")
    assert again == first
    assert (again.path / "half-done").read_text() == "kept"


def test_a_run_that_ended_removes_its_workspace_unless_a_command_is_at_work_there(home: Path) -> None:
    env = {"DYNAMICID_HOME": str(home)}
    words = ("workspace", "remove", "--run-id", "dynamicid_ingest/one")
    path = create(home, "dynamicid_ingest/one", temporary=True).path
    with staying(path):
        assert "a process is using it; wait" in dynamicid(*words, cwd=home, env=env, code=1).stderr
    assert json.loads(dynamicid(*words, cwd=home, env=env).stdout)["removed"] == 1
    assert not path.exists()
    assert json.loads(dynamicid(*words, cwd=home, env=env).stdout) == {"removed": 0, "bytes": 0}


def test_an_interrupted_clone_is_made_again(home: Path) -> None:
    path = create(home, "run").path
    (path / ".dynamicid" / "workspace.json").unlink()
    (path / "rubbish").write_text("x")
    assert not (create(home, "run").path / "rubbish").exists()


def test_a_saved_run_is_restored_with_nothing_left_to_do(home: Path, tmp_path: Path) -> None:
    work = create(home, "run-a")
    (work.path / "params.yaml").write_text("factor: 3\n")
    add_data(work.path)
    assert dvc(work.path, "repro", capture=True).returncode == 0
    assert (work.path / "result.txt").read_text() == "63"
    save(home, "run-a")

    restored = restore(home, "run-a", tmp_path / "elsewhere")
    assert (restored / "params.yaml").read_text() == "factor: 3\n"
    assert (restored / "result.txt").read_text() == "63"
    done = dvc(restored, "repro", capture=True)
    assert done.returncode == 0
    assert "didn't change, skipping" in done.stdout
    assert "up to date" in done.stdout
    assert git(home, "status", "--porcelain") == ""


def test_a_restore_that_is_killed_leaves_no_folder_and_is_repeated(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = create(home, "run a").path
    add_data(work)
    assert dvc(work, "repro", "-q", capture=True).returncode == 0
    save(home, "run a")
    child = os.fork()
    if child == 0:
        # The process ends between two commands of DVC, without cleaning up.
        try:
            monkeypatch.setattr(workspace, "dvc", lambda *arguments, **_: os._exit(9))
            restore(home, "run a", tmp_path / "elsewhere")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (tmp_path / "elsewhere").exists()
    assert (restore(home, "run a", tmp_path / "elsewhere") / "result.txt").read_text() == "42"
    assert not list(tmp_path.glob(".elsewhere*"))


def test_two_runs_at_once_do_not_meet(home: Path, tmp_path: Path) -> None:
    def whole(factor: int) -> str:
        work = create(home, f"run {factor}")
        (work.path / "params.yaml").write_text(f"factor: {factor}\n")
        add_data(work.path)
        assert dvc(work.path, "repro", capture=True).returncode == 0
        save(home, f"run {factor}")
        return (work.path / "result.txt").read_text()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(whole, (4, 5))) == ["84", "105"]
    assert (restore(home, "run 4", tmp_path / "four") / "result.txt").read_text() == "84"
    assert (restore(home, "run 5", tmp_path / "five") / "result.txt").read_text() == "105"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("a_b", "a.b"), ("a-b", "a_b"), ("x" * 80 + "1", "x" * 80 + "2"), ("Run", "run"), ("dag/run", "dag_run")),
        *(("scheduled__2026-01-01T00:00:00+00:00", "scheduled__2026-01-01T00-00-00+00-00"), ("名a", "前a")),
    ],
)
def test_two_run_ids_never_share_a_workspace(home: Path, one: str, other: str) -> None:
    names = run_name(one), run_name(other)
    assert names[0] != names[1]
    for name in names:
        assert len(name) <= 80
        assert re.fullmatch("[a-z0-9-]+", name)
        assert run_name(name) == name, "the name of a run is its own name"
    (create(home, one).path / "of-one").touch()
    assert not (create(home, other).path / "of-one").exists()


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True))
@settings(derandomize=True)
def test_names_of_any_two_ids_differ(ids: list[str]) -> None:
    assume(all(re.search("[A-Za-z0-9]", one) for one in ids))
    assert run_name(ids[0]) != run_name(ids[1])


def test_a_run_that_an_earlier_release_saved_is_restored(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(workspace, "run_name", workspace._plain_name)
        add_data(create(home, "manual__1").path)
        assert dvc(create(home, "manual__1").path, "repro", "-q", capture=True).returncode == 0
        assert save(home, "manual__1") == "manual-1"
    assert (restore(home, "manual__1", tmp_path / "new") / "result.txt").read_text() == "42"


def test_errors_name_what_was_wrong(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="never-ran"):
        restore(home, "never-ran", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="it exists"):
        restore(home, "x", home)
    with pytest.raises(UserError, match="no letter or digit"):
        run_name("+++")
