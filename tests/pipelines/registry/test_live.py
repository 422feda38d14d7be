"""A stage is one run of MLflow from its first second, its chain has one parent, and neither can stop a training."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.core.errors import StageFailed
from pipelines.core.execution import VARIABLE, note_row, note_samples, noting, read_execution
from pipelines.core.params import load_params
from pipelines.operations.forgetting.registry import delete_artefacts, traces
from pipelines.registry.lineage import AIRFLOW_RUN_VARIABLE
from pipelines.registry.live import _Follower, live_run
from pipelines.registry.parents import child_run
from pipelines.registry.recorder import Discarded, record_stage
from pipelines.registry.registry import open_registry
from pipelines.registry.results import result_of
from pipelines.registry.runs import PARENT, search_runs
from pipelines.versions.dataset_version import current_version
from pipelines.versions.dvc import stage_environment
from pipelines.versions.git import git
from pipelines.versions.lock import experiment_of
from tests.pipelines.registry.conftest import make_result, small_chain
from tests.processes import run as run_process
from tests.processes import wait_until

ROW = {"step": 1, "loss": 0.123456789, "probe": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, project: Path, empty_database: Path) -> Path:
    """A chain whose stages have all run, with an empty MLflow."""
    root = tmp_path_factory.mktemp("made") / "checkout"
    small_chain(root, project)
    make_result(root, 0.5)
    shutil.copy2(empty_database, root / "mlflow.db")
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "checkout", symlinks=True)
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"


def execute(root: Path, stage: str, during: Callable[[], object] = lambda: None) -> None:
    """Run a stage as DVC does, by its command; its outputs are written again as they were."""
    from pipelines.core.chain import stages

    outputs = next(one.outputs for one in stages() if one.name == stage)

    def command() -> None:
        during()
        for path in outputs:
            for file in [root / path, *(root / path).rglob("*")]:
                file.touch()

    noting(stage, outputs, command)()


def repro(root: Path, stage: str, during: Callable[[], object] = lambda: None) -> Any:
    """As `dynamicid repro STAGE`; return the run."""
    with live_run(root, stage):
        execute(root, stage, during)
    return open_registry(root).get_run(record_stage(root, stage, load_params(root / "params.yaml")))


def test_a_stage_is_a_run_while_it_runs_with_its_own_times_and_curve(root: Path) -> None:
    seen: list[Any] = []
    client = open_registry(root)

    def training() -> None:
        note_row(ROW)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = search_runs(client, "RUNNING", {"stage": "train_imr"})
            if found and client.get_metric_history(found[0].info.run_id, "loss"):
                seen.append(found[0])
                return
            time.sleep(0.2)

    run = repro(root, "train_imr", training)
    assert [one.info.run_id for one in seen] == [run.info.run_id], "it was there while it ran, with its loss"
    execution = read_execution(root, "train_imr")
    assert execution is not None
    assert execution.end is not None
    assert (run.info.start_time, run.info.end_time) == (round(execution.start * 1000), round(execution.end * 1000))
    assert run.info.status == "FINISHED"
    assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "loss")] == [(1, 0.123457)]
    assert run.data.tags["mlflow.source.name"] == "dynamicid train-imr"
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    assert run.data.params["train_anchoring.steps"], "of the stages that shaped it"
    names = {one.dataset.name: json.loads(one.dataset.profile) for one in run.inputs.dataset_inputs}
    assert set(names) == {"faces-v1", "faces-v1 processed"}
    parent = client.get_run(run.data.tags[PARENT])
    assert (parent.info.run_name, parent.info.status) == ("chain faces-v1", "FINISHED")
    assert (parent.info.start_time, parent.info.end_time) == (run.info.start_time, run.info.end_time)
    assert record_stage(root, "train_imr", load_params(root / "params.yaml")) == run.info.run_id


def test_sample_pictures_are_logged_once_and_found_by_their_people_also_of_a_killed_training(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training() -> None:
        for step in (4, 40):
            note_samples(step, np.full((8, 16, 3), step, np.uint8))

    def steps(run: Any) -> list[str]:
        client, run_id = open_registry(root), run.info.run_id
        paths = [item.path for item in client.list_artifacts(run_id, "images") if item.path.endswith(".png")]
        return sorted(path.split("+")[2] for path in paths)

    run = repro(root, "train_imr", training)
    assert steps(run) == ["4", "40"]
    record_stage(root, "train_imr", load_params(root / "params.yaml"))
    assert steps(run) == ["4", "40"], "a second recording adds none"

    def stop() -> None:
        training()
        raise StageFailed("no more disk")

    with pytest.raises(StageFailed), live_run(root, "train_anchoring"):
        execute(root, "train_anchoring", stop)
    (killed,) = search_runs(open_registry(root), "FAILED", {"stage": "train_anchoring"})
    dataset = current_version(root).md5
    assert dataset is not None
    found, _ = traces(root, {dataset}, set(), frozenset(["val"]))
    shown = {(item["run_id"], Path(item["path"]).suffix) for item in found.artefacts}
    assert shown == {(one.info.run_id, kind) for one in (run, killed) for kind in (".png", ".webp")}
    delete_artefacts(root, found.artefacts)
    assert steps(run) == steps(killed) == []


def test_a_chain_has_one_parent_however_it_is_recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, params = open_registry(root), load_params(root / "params.yaml")
    first = {repro(root, stage).data.tags[PARENT] for stage in ("validate", "preprocess")}
    # The rest by `dvc repro`, and `record` afterwards.
    rest = {record_stage(root, stage, params) for stage in ("validate_processed", "train_anchoring", "train_imr")}
    assert {client.get_run(one).data.tags[PARENT] for one in rest} == first
    assert len(first) == 1
    assert len(search_runs(client, None, {"stage": "chain"})) == 1
    with live_run(root, "validate"):
        pass  # DVC skips it
    record_stage(root, "validate", params)
    assert len(search_runs(client, None, {"stage": "validate"})) == 1, "what was skipped is no new run"
    again = repro(root, "train_imr")
    assert again.data.tags[PARENT] not in first, "forced: there is one in the chain already"
    note = client.get_run(again.data.tags[PARENT]).data.tags["mlflow.note.content"]
    assert all(one in note for one in rest - {again.info.run_id} if client.get_run(one).info.run_name != "train_imr")
    monkeypatch.setenv(AIRFLOW_RUN_VARIABLE, "dynamicid_train/scheduled__1")
    figures = client.get_run(record_stage(root, "evaluate", params))
    parent = client.get_run(figures.data.tags[PARENT])
    assert parent.info.run_name == "scheduled__1"
    assert parent.data.metrics == figures.data.metrics, "chains are compared by their parents, too"
    assert parent.data.params == figures.data.params


def test_a_stage_that_fails_says_why_and_its_next_attempt_joins_the_chain(root: Path) -> None:
    def fail() -> None:
        raise StageFailed("the loss is nan at step 3: lower learning_rate")

    before = repro(root, "train_anchoring")
    with pytest.raises(StageFailed), live_run(root, "train_imr"):
        execute(root, "train_imr", fail)
    client = open_registry(root)
    (failed,) = search_runs(client, "FAILED", {"stage": "train_imr"})
    assert failed.data.tags["dynamicid.reason"] == "the loss is nan at step 3: lower learning_rate"
    parent = client.get_run(before.data.tags[PARENT])
    assert (failed.data.tags[PARENT], parent.info.status) == (parent.info.run_id, "FAILED")
    done = repro(root, "train_imr")
    assert done.data.tags[PARENT] == parent.info.run_id
    assert client.get_run(parent.info.run_id).info.status == "FINISHED"
    client.delete_run(done.info.run_id)
    with pytest.raises(Discarded):
        repro(root, "train_imr")
    assert [one.info.run_id for one in search_runs(client, None, {"stage": "train_imr"})] == [failed.info.run_id]
    assert search_runs(client, "RUNNING", {}) == [], "nor does the parent wait for it"


def test_a_chain_at_its_end_stays_as_it_is_whatever_fails_later(root: Path) -> None:
    """Its trainings ran without MLflow, so it has no runs of them that would keep a later one out."""

    def fail() -> None:
        raise StageFailed("2765 of 2765 photos may not be trained on, by `rights`")

    client = open_registry(root)
    chain = repro(root, "preprocess").data.tags[PARENT]
    assert repro(root, "evaluate").data.tags[PARENT] == chain
    ended = client.get_run(chain).info.end_time
    with pytest.raises(StageFailed), live_run(root, "train_anchoring"):
        execute(root, "train_anchoring", fail)
    (failed,) = search_runs(client, "FAILED", {"stage": "train_anchoring"})
    assert failed.data.tags[PARENT] != chain
    assert (client.get_run(chain).info.status, client.get_run(chain).info.end_time) == ("FINISHED", ended)


def test_a_parent_has_the_name_of_the_experiment_whose_results_it_groups(root: Path) -> None:
    params, client = load_params(root / "params.yaml"), open_registry(root)

    def parent_of(stage: str) -> Any:
        return client.get_run(client.get_run(record_stage(root, stage, params)).data.tags[PARENT])

    assert parent_of("validate").info.run_name == "chain faces-v1"
    git(root, "add", "dvc.lock")
    commit = git(root, "commit-tree", git(root, "write-tree"), "-p", "HEAD", "-m", "results")
    head = git(root, "rev-parse", "HEAD")
    git(root, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/faster", commit)
    named = parent_of("train_imr")
    assert (named.info.run_name, named.data.tags["dynamicid.experiment"]) == ("chain faces-v1, faster", "faster")
    assert parent_of("evaluate").info.run_name == "chain faces-v1, faster"
    git(root, "commit", "-q", "-m", "First results")
    assert experiment_of(root) is None, "the results are those of the commit"


def test_a_stage_that_succeeds_later_does_not_hide_one_that_failed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks of one run of a DAG end in either order, each in a process of its own."""
    monkeypatch.setenv(AIRFLOW_RUN_VARIABLE, "dynamicid_train/manual__1")
    client = open_registry(root)

    def state(stage: str) -> str:
        [parent] = search_runs(client, None, {"stage": "chain", "airflow_run_id": "dynamicid_train/manual__1"})
        assert len(search_runs(client, None, {PARENT: parent.info.run_id, "stage": stage})) > 0
        return str(parent.info.status)

    def fail() -> None:
        raise StageFailed("the loss diverged")

    def first_fails() -> None:
        wait_until(lambda: search_runs(client, "RUNNING", {"stage": "evaluate"}), 120, "no run")
        with monkeypatch.context() as other:
            other.delenv(VARIABLE)
            with pytest.raises(StageFailed):
                repro(root, "train_imr", fail)
        assert state("train_imr") == "RUNNING", "the other stage still runs"

    repro(root, "evaluate", first_fails)
    assert state("evaluate") == "FAILED"
    repro(root, "train_imr")
    assert state("train_imr") == "FINISHED", "the cleared task has mended it"


def test_a_stage_that_ends_before_its_file_is_read_again_is_a_run_of_its_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced, it gives the same result: only the run that shows it while it runs tells it from the first one."""
    first, ended = repro(root, "train_imr"), threading.Event()

    def slow(folder: Path, stage: str) -> Any:
        found = read_execution(folder, stage)
        if threading.current_thread().name == f"live {stage}":
            ended.wait(60)  # the stage begins and ends between this reading of its file and the next
        return found

    monkeypatch.setattr("pipelines.registry.live.read_execution", slow)
    finish = _Follower.finish

    def finishing(follower: _Follower, error: BaseException | None) -> None:
        follower._ended.set()
        ended.set()
        finish(follower, error)

    monkeypatch.setattr(_Follower, "finish", finishing)
    assert repro(root, "train_imr").info.run_id != first.info.run_id


def test_the_parent_of_a_schedulers_run_lasts_as_long_as_a_registration_or_drift(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_registry(root)
    by_hand = repro(root, "evaluate").data.tags[PARENT]
    ended = client.get_run(by_hand).info.end_time
    with child_run(client, root, "register", {"dynamicid.stage": "register"}, by_hand) as run_id:
        assert client.get_run(run_id).data.tags[PARENT] == by_hand
        assert client.get_run(by_hand).info.status == "FINISHED", "it ended before somebody registered its adapter"
    assert client.get_run(by_hand).info.end_time == ended
    monkeypatch.setenv(AIRFLOW_RUN_VARIABLE, "dynamicid_train/manual__2")
    parents = {"stage": "chain", "airflow_run_id": "dynamicid_train/manual__2"}

    def attempt(fault: Exception | None) -> tuple[str, bool]:
        given = search_runs(client, None, parents)
        with suppress(StageFailed), child_run(client, root, "drift", {"dynamicid.stage": "drift"}, *ids(given)) as one:
            (parent,) = search_runs(client, "RUNNING", parents)
            if fault is not None:
                raise fault
        found, child = client.get_run(parent.info.run_id), client.get_run(one)
        return found.info.status, found.info.end_time == child.info.end_time

    def ids(runs: list[Any]) -> list[str]:
        return [run.info.run_id for run in runs]

    assert attempt(StageFailed("the disk is full")) == ("FAILED", True)
    assert attempt(None) == ("FINISHED", True)


def test_pictures_of_a_run_that_was_not_completed_are_found_by_their_people(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise OSError("no space left on the disk")

    monkeypatch.setattr("pipelines.registry.recorder.write_sheet", fail)
    with pytest.raises(OSError, match="no space"):
        repro(root, "evaluate")
    (failed,) = search_runs(open_registry(root), "FAILED", {"stage": "evaluate"})
    dataset = result_of(root, "evaluate").dataset_md5
    assert dataset is not None
    found, _ = traces(root, {dataset}, set(), frozenset(["test"]))
    assert [(item["run_id"], item["path"]) for item in found.artefacts] == [(failed.info.run_id, "index.html")]


def test_no_server_and_no_disk_stop_a_training(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("DYNAMICID_MLFLOW_WAIT", "0")
    done = []
    with live_run(root, "train_imr"):
        execute(root, "train_imr", lambda: (note_row(ROW), time.sleep(2), done.append(1)))
    assert done
    assert "train_imr: not shown in MLflow while it runs (MLflow at http://127.0.0.1:9" in capsys.readouterr().err
    shutil.rmtree(root / ".dynamicid" / "executions")
    (root / ".dynamicid" / "executions").write_text("no folder")
    execute(root, "train_imr", lambda: (note_row(ROW), done.append(2)))
    assert done == [1, 2]


def test_the_command_of_a_stage_notes_its_execution(root: Path, project: Path) -> None:
    """Its start is that of the process; a command that ends with an error has its exit code."""
    begin = time.time()
    path = {"PATH": stage_environment()["PATH"]}
    run_process(sys.executable, "-m", "pipelines.cli", "validate", "none", cwd=root, env=path, code=2)
    execution = read_execution(root, "validate")
    assert execution is not None
    assert execution.code == 2
    assert execution.end is not None
    assert begin - 0.1 <= execution.start < execution.end <= time.time()
    assert not execution.made(root), "what is there was made before"
