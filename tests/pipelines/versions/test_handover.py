"""Two machines without a common disk work on one run in turn; they share a git repository and a DVC remote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import staying
from pipelines.core.sections.operations import Keeping
from pipelines.operations.retention import remove, survey
from pipelines.versions.dataset_version import fetch_versions, known_versions, make_version
from pipelines.versions.dvc import dvc
from pipelines.versions.handover import ALL, begin, bring, end, enter, hand_over, removed_elsewhere
from pipelines.versions.workspace import Workspace, restore, save
from tests.processes import commit_all, dynamicid, git

RUN = "dynamicid_train/manual__2026-01-01"
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
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The checkouts of two machines."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    first, second, shared = (tmp_path / name for name in ("first", "second", "shared.git"))
    first.mkdir()
    git(first, "init", "-q", "-b", "main")
    dvc(first, "init", "-q")
    (first / "dvc.yaml").write_text(_DVC_YAML)
    (first / "double.py").write_text(_SCRIPT)
    (first / "params.yaml").write_text("factor: 2\n")
    with (first / ".gitignore").open("a") as handle:
        handle.write("/.dynamicid/\n/result.txt\n/data/number\n/data/.gitignore\n")
    dvc(first, "remote", "add", "-q", "-d", "team", str(tmp_path / "remote"))
    commit_all(first, "start")
    git(tmp_path, "clone", "-q", "--bare", str(first), str(shared))
    git(tmp_path, "clone", "-q", str(shared), str(second))
    for home in (first, second):
        git(home, "remote", "add", "machines", str(shared))
    return first, second


def _add(work: Workspace, number: int = 21) -> None:
    folder = work.path / "data" / "number"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "n.txt").write_text(str(number))


def _double(work: Workspace) -> str:
    done = dvc(work.path, "repro", "--single-item", "double", capture=True)
    assert done.returncode == 0, done.stderr
    return (work.path / "result.txt").read_text()


def test_tasks_of_one_run_are_done_on_two_machines_in_turn(machines: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = machines
    begun = begin(first, RUN)
    commit_all_of_second = second / "double.py"
    commit_all_of_second.write_text("raise SystemExit('newer code, which is not that of the run')")
    commit_all(second, "newer")
    assert begin(second, RUN).path != begun.path
    (begun.path / "params.yaml").write_text("factor: 3\n")
    _add(begun)
    hand_over(begun, keep=["data/number"])

    other = enter(second, RUN)
    assert (other.path / "double.py").read_text() == _SCRIPT, "the code of the run"
    assert not (other.path / "data" / "number").exists(), "only what a task needs is brought"
    bring(other, ["data/number"])
    assert _double(other) == "63"
    hand_over(other)
    shutil.rmtree(second / ".dvc" / "cache")

    again = enter(first, RUN)
    assert again.path == begun.path
    assert "double" in (again.path / "dvc.lock").read_text()
    bring(again, ["data/number", "result.txt"])
    assert (again.path / "result.txt").read_text() == "63"

    bring(enter(second, RUN), [ALL])
    assert save(second, RUN) in git(tmp_path / "shared.git", "for-each-ref", "refs/exps")
    restored = restore(first, RUN, tmp_path / "restored")
    assert (restored / "result.txt").read_text() == "63"
    assert "factor: 3" in (restored / "params.yaml").read_text()


def test_a_machine_that_died_is_replaced_and_cannot_come_back_into_the_run(machines: tuple[Path, Path]) -> None:
    first, second = machines
    dying = begin(first, RUN)
    _add(dying)
    hand_over(dying, keep=["data/number"])
    _add(dying, 5)  # half a task

    other = enter(second, RUN)
    bring(other, ["data/number"])
    assert _double(other) == "42"
    hand_over(other)
    with pytest.raises(StageFailed, match="its state cannot be handed over: another machine has taken it over"):
        hand_over(dying)
    (dying.path / "dvc.lock").write_text("half")
    back = enter(first, RUN)
    bring(back, [ALL])
    assert (back.path / "result.txt").read_text() == "42"


def test_a_run_that_one_machine_removes_goes_from_all_and_may_begin_again(machines: tuple[Path, Path]) -> None:
    first, second = machines
    kept = begin(first, "another")
    work = begin(first, RUN)
    _add(work)
    hand_over(work, keep=["data/number"])
    copy = enter(second, RUN)
    assert removed_elsewhere(second) == []
    shutil.rmtree(work.path)
    end(first, RUN)
    end(first, RUN)  # interrupted, and called again
    assert removed_elsewhere(second) == [copy.path]
    assert removed_elsewhere(first) == []
    assert kept.path.is_dir()
    with pytest.raises(UserError, match="no machine has begun this run"):
        enter(first, RUN)
    again = begin(first, RUN)
    assert removed_elsewhere(second) == [], "it is another run of the same name"
    assert not (again.path / "data" / "number.dvc").exists()


def test_a_task_and_clean_remove_what_another_machine_has_removed(
    machines: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = machines
    copies = {}
    for run in ("one", "two", "three"):
        begin(first, run)
        copies[run] = enter(second, run).path
    for run in ("one", "two"):
        dynamicid("workspace", "remove", "--run-id", run, "--home", first, cwd=first)
    with staying(copies["two"]):
        kept = {item.path.name: item.kept for item in survey(second, Keeping())}
        assert (kept["one"], kept["two"]) == (None, "a process is using it")
        assert str(kept["three"]).startswith("used 0.0 days ago")
        dynamicid("workspace", "run", "--run-id", "three", "--home", second, "--", "workspace", "--help", cwd=second)
    assert [run for run, copy in copies.items() if copy.is_dir()] == ["two", "three"]
    remove(survey(second, Keeping()))
    assert [run for run, copy in copies.items() if copy.is_dir()] == ["three"]
    git(second, "remote", "set-url", "machines", str(first.parent / "gone.git"))
    assert all(item.kept for item in survey(second, Keeping()))
    assert "workspaces of runs that other machines have removed stay" in capfd.readouterr().err


def test_what_machines_must_share_is_asked_for(machines: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = machines
    with pytest.raises(UserError, match="no machine has begun this run; clear the task `workspace`"):
        enter(first, RUN)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI: several machines .* need one MLflow server"):
        begin(first, "other")
    dvc(first, "remote", "remove", "team")
    with pytest.raises(UserError, match=r"several machines .* need a DVC remote"):
        begin(first, "other")


def test_on_one_machine_everything_is_in_place(machines: tuple[Path, Path]) -> None:
    first, _ = machines
    git(first, "remote", "remove", "machines")
    with pytest.raises(UserError, match="the workspace of this run is gone, as after `dynamicid clean`"):
        enter(first, RUN)
    work = begin(first, RUN)
    _add(work)
    hand_over(work, keep=["data/number"])
    assert not (work.path / "data" / "number.dvc").exists(), "nothing is hashed or pushed"
    assert enter(first, RUN) == work
    bring(work, ["data/absent"])


def test_a_dataset_version_of_one_machine_is_known_to_the_others(machines: tuple[Path, Path]) -> None:
    first, second = machines
    works = [begin(home, RUN) for home in machines]
    for number, work in enumerate(works):
        _add(work, number)
        assert make_version(work.path, "data/number", "photos").tag == f"number-v{number + 1}"
    assert known_versions(works[1].path, "data/number") == ["number-v1", "number-v2"]
    assert known_versions(first, "data/number") == ["number-v1"]
    for home in (first, second):
        fetch_versions(home, "data/number")
        assert known_versions(home, "data/number") == ["number-v1", "number-v2"]


@pytest.mark.parametrize("several", [False, True])
def test_a_command_runs_in_the_workspace_and_its_exit_code_is_passed_on(
    machines: tuple[Path, Path], tmp_path: Path, several: bool
) -> None:
    first, note = machines[0], tmp_path / "note"
    if not several:
        git(first, "remote", "remove", "machines")
    env = {"DYNAMICID_AIRFLOW_RUN_ID": RUN, "DYNAMICID_WORKSPACE_FILE": str(note), "DYNAMICID_HOME": str(first)}
    made = dynamicid("workspace", "create", cwd=first, env=env).stdout.strip()
    listed = dynamicid("workspace", "run", "--", "dataset", "list", cwd=first, env=env)
    assert listed.stdout.strip() == ""
    assert note.read_text() == made
    git(Path(made), "tag", "faces-v1")
    assert "faces-v1" in dynamicid("workspace", "run", "--", "dataset", "list", cwd=first, env=env).stdout
    refused = dynamicid("workspace", "run", "--", "dataset", "checkout", "faces-v9", cwd=first, env=env, code=2)
    assert "version faces-v9: no such tag" in refused.stderr
