"""A finished stage is recorded in a real MLflow: once, with lineage, parameters, metrics and curves."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import load_params
from pipelines.registry.recorder import record_stage, stage_metrics
from tests.pipelines import test_disk_full as disks
from tests.processes import commit_all, dvc, git

RUN_ID = "dynamicid_train/manual__2026-01-01T00:00:00.5+00:00"


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


@pytest.fixture
def root(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DYNAMICID_HOME", raising=False)
    monkeypatch.setenv("DYNAMICID_AIRFLOW_RUN_ID", RUN_ID)
    (tmp_path / "params.yaml").write_text((project / "profiles" / "tiny.yaml").read_text())
    (tmp_path / "reports" / "train_imr").mkdir(parents=True)
    (tmp_path / "reports" / "train_imr" / "losses.csv").write_text("step,loss,ldc\n1,0.5,\n2,0.25,0.125\n")
    (tmp_path / "reports" / "train_imr" / "metrics.json").write_text(
        json.dumps({"imr": 0.05, "copy_source": 0.07, "determinism": "fast"})
    )
    metrics = {
        "evaluation_set": "e" * 64,
        "model": {"id_similarity": interval(0.5)},
        "text_only": {"id_similarity": interval(0.0)},
        "normalised": {"model": {"id_similarity": interval(0.6)}},
    }
    (tmp_path / "reports" / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "models" / "adapter").mkdir(parents=True)
    (tmp_path / "models" / "adapter" / "config.json").write_text("{}")
    reports = [f"reports/train_imr/{name}" for name in ("losses.csv", "metrics.json")]
    stages = {
        "train_imr": {"cmd": "x", "params": ["train_imr"], "outs": ["models/adapter", *reports]},
        "evaluate": {"cmd": "y", "deps": ["models/adapter"], "params": ["evaluate"], "outs": ["reports/metrics.json"]},
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    git(tmp_path, "init", "-q", "-b", "main")
    dvc(tmp_path, "init", "-q")
    dvc(tmp_path, "commit", "-q", "-f")
    commit_all(tmp_path, "start")
    return tmp_path


def lock_of(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "dvc.lock").read_text())


def test_a_stage_is_recorded_once_with_everything(root: Path) -> None:
    from mlflow.tracking import MlflowClient

    params = load_params(root / "params.yaml")
    first = record_stage(root, "train_imr", params)
    assert record_stage(root, "train_imr", params) == first

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    run = client.get_run(first)
    assert run.info.run_name == "train_imr"
    assert run.info.status == "FINISHED"
    assert run.data.tags["dynamicid.git_commit"] == git(root, "rev-parse", "HEAD").strip()
    assert run.data.tags["dynamicid.airflow_run_id"] == RUN_ID
    adapter = lock_of(root)["stages"]["train_imr"]["outs"][0]
    assert run.data.tags["dynamicid.output.models/adapter"] == adapter["md5"]
    assert len(run.data.tags["dynamicid.lock_hash"]) == 64
    assert run.data.params["train_imr.steps"] == str(params.train_imr.steps)
    assert run.data.params["profile"] == "tiny"
    assert run.data.metrics["imr"] == 0.05
    assert [point.value for point in client.get_metric_history(first, "loss")] == [0.5, 0.25]
    assert [point.step for point in client.get_metric_history(first, "ldc")] == [2]
    assert {file.path for file in client.list_artifacts(first)} >= {"losses.csv", "metrics.json"}
    assert client.get_run(first).data.tags["dynamicid.determinism"] == "fast"
    assert str(root / "mlartifacts") in run.info.artifact_uri
    assert RUN_ID in {value for key, value in run.data.tags.items() if key.startswith("dynamicid.used_by.")}


def test_what_an_earlier_attempt_could_not_finish_is_marked_as_failed(root: Path) -> None:
    """As when the server stops during recording and the run cannot be marked as failed."""
    from mlflow.tracking import MlflowClient

    params = load_params(root / "params.yaml")
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    first = record_stage(root, "evaluate", params)
    tags = dict(client.get_run(first).data.tags)
    experiment = client.get_run(first).info.experiment_id
    client.set_terminated(first, "FAILED")  # so that it is recorded again
    cut_off = client.create_run(experiment, tags=tags).info.run_id
    elsewhere = {"dynamicid.airflow_run_id": "another", "dynamicid.writer": "another-machine:/checkout:0"}
    other = client.create_run(experiment, tags={**tags, **elsewhere}).info.run_id
    again = record_stage(root, "evaluate", params)
    states = {run: client.get_run(run).info.status for run in (cut_off, other, again)}
    assert states == {cut_off: "FAILED", other: "RUNNING", again: "FINISHED"}


def test_a_changed_lock_entry_is_another_run(root: Path) -> None:
    params = load_params(root / "params.yaml")
    first = record_stage(root, "train_imr", params)
    (root / "reports" / "train_imr" / "metrics.json").write_text(json.dumps({"imr": 0.04}))
    dvc(root, "commit", "-q", "-f")
    assert record_stage(root, "train_imr", params) != first


def test_the_parameters_are_those_of_the_lock_file(root: Path) -> None:
    """As after an edit of params.yaml for the next training: its new value made nothing yet."""
    from mlflow.tracking import MlflowClient

    made = lock_of(root)["stages"]["train_imr"]["params"]["params.yaml"]["train_imr"]["learning_rate"]
    edited = load_params(root / "params.yaml", ["train_imr.learning_rate=0.123", "profile=other"])
    run = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_run(record_stage(root, "train_imr", edited))
    assert run.data.params["train_imr.learning_rate"] == str(made) == "0.0002"
    assert "profile" not in run.data.params, "nothing says that it was the profile of this training"


def test_a_result_that_an_earlier_release_recorded_is_not_recorded_again(root: Path) -> None:
    """Release 0.1.0 hashed the entry as PyYAML reads it, which takes DVC's `no` for False."""
    from mlflow.tracking import MlflowClient

    params = load_params(root / "params.yaml")
    entry = lock_of(root)["stages"]["train_imr"]
    assert "mixed_precision: no\n" in (root / "dvc.lock").read_text()
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    run = client.get_run(record_stage(root, "train_imr", params))
    recorded = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
    assert run.data.tags["dynamicid.lock_hash"] == recorded


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("train_imr", "models/adapter/config.json"),
        ("train_imr", "reports/train_imr/losses.csv"),
        ("evaluate", "reports/metrics.json"),
    ],
)
def test_files_that_the_lock_does_not_have_are_refused_by_name(root: Path, stage: str, file: str) -> None:
    (root / file).write_text('{"settings": {"adapter": "0123456789abcdef"}}')
    with pytest.raises(StageFailed, match=rf"{Path(file).parts[0]}.*dynamicid (repro|evaluate)") as refused:
        record_stage(root, stage, load_params(root / "params.yaml"))
    assert refused.value.exit_code == 1
    assert not (root / "mlflow.db").exists(), "nothing was recorded"


def test_a_result_of_an_earlier_adapter_is_not_recorded_with_the_new_one(root: Path) -> None:
    (root / "models" / "adapter" / "config.json").write_text('{"steps": 5}')
    lock = lock_of(root)
    lock["stages"]["train_imr"]["outs"][0]["md5"] = "0123456789abcdef.dir"  # as `repro --single-item train_imr` does
    (root / "dvc.lock").write_text(yaml.safe_dump(lock))
    with pytest.raises(StageFailed, match=r"evaluate was made from models/adapter \w+, train_imr has made 012345"):
        record_stage(root, "evaluate", load_params(root / "params.yaml"))


def table(client: Any, run_id: str, name: str, root: Path) -> dict[str, Any]:
    return json.loads(Path(client.download_artifacts(run_id, name, str(root))).read_text())


def test_an_evaluation_has_few_metrics_by_plain_names_and_a_table_of_all(root: Path) -> None:
    from mlflow.tracking import MlflowClient

    params = load_params(root / "params.yaml")
    run_id = record_stage(root, "evaluate", params)
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    data = client.get_run(run_id).data
    assert data.metrics == {"id_similarity": 0.5, "s": 0.6}
    assert next(iter(stage_metrics(root, "evaluate"))) == "s", "MLflow's page shows them in this order"
    assert data.tags["dynamicid.evaluation_set"] == "e" * 64
    everything = table(client, run_id, "all_metrics.json", root)
    rows = {(row[0], row[1]): row[2:5] for row in everything["data"]}
    assert rows["text_only", "id_similarity"] == [0.0, -0.1, 0.1]
    assert rows["normalised.model", "id_similarity"][0] == 0.6
    note = data.tags["mlflow.note.content"].replace("&emsp;", "")
    assert re.search(r"\| s \| 0\.600 \| 0\.500 … 0\.700 \| .*0 is a stranger", note)
    # Of the stages behind it, too: those with which the present results were made.
    assert data.params["train_imr.steps"] == str(params.train_imr.steps)
    assert data.params["evaluate.seed"] == str(params.evaluate.seed)


def test_the_lines_of_the_guide_run(
    root: Path, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {name: interval(0.5) for name in ("id_similarity", "expression_accuracy")}
    document = {"evaluation_set": "e" * 64, "model": rows, "normalised": {"model": {"id_similarity": interval(0.6)}}}
    (root / "reports" / "metrics.json").write_text(json.dumps(document))
    dvc(root, "commit", "-q", "-f")
    record_stage(root, "evaluate", load_params(root / "params.yaml"))
    (root / "data" / "processed").mkdir(parents=True)
    monkeypatch.chdir(root)
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", (project / "docs/guides/mlflow.md").read_text(), re.DOTALL):
        exec(code, names)
    printed = capsys.readouterr().out
    assert re.search(r"0\.6 +0\.5 +\d+", printed), printed
    assert "faces evaluation set" in printed
    assert Path(names["folder"]).is_dir()


def test_all_metrics_of_a_full_evaluation_leave_room_for_those_of_the_machine(root: Path) -> None:
    from pipelines.evaluation.variants import METRICS, PAPER_METRICS

    row = dict.fromkeys(METRICS, interval(0.5))
    variants = dict.fromkeys(("model", "shipped", "text_only", "without_imr", "ceiling", "floor"), row)
    document = {"evaluation_set": "e" * 64, **variants, "normalised": variants}
    document["paper"] = {name: dict.fromkeys(PAPER_METRICS, interval(0.5)) for name in ("model", "without_gate")}
    document["paper"]["without_imr"] = document["paper"]["model"]
    (root / "reports" / "metrics.json").write_text(json.dumps(document))
    values = stage_metrics(root, "evaluate")
    assert {"s", "own_over_other", "expression_accuracy", "shipped.s", "paper.model.FaceSim"} <= set(values)
    assert len(values) <= 32


def test_the_papers_metrics_are_recorded_beside_ours(root: Path) -> None:
    from mlflow.tracking import MlflowClient

    file = root / "reports" / "metrics.json"
    document = json.loads(file.read_text())
    row = {"CLIP-T": interval(0.2), "FaceSim": {"value": None, "reason": "recogniser: no"}, "Expr": interval(0.4)}
    document["paper"] = dict.fromkeys(("model", "without_gate", "without_imr"), row)
    file.write_text(json.dumps(document))
    dvc(root, "commit", "-q", "-f")
    run_id = record_stage(root, "evaluate", load_params(root / "params.yaml"))
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    run = client.get_run(run_id)
    assert run.data.metrics["paper.model.CLIP-T"] == 0.2
    assert not any("FaceSim" in name for name in run.data.metrics)
    assert run.data.tags["dynamicid.not_measurable"] == "FaceSim"
    paper = table(client, run_id, "paper.json", root)
    assert paper["columns"] == ["variant", "CLIP-T", "FaceSim", "Expr"]
    assert paper["data"][0] == ["model", 0.2, None, 0.4]
    assert [{"path": name, "type": "table"} for name in ("all_metrics.json", "paper.json")] == json.loads(
        run.data.tags["mlflow.loggedArtifacts"]
    )


@disks.pytestmark
@pytest.mark.parametrize(
    ("small", "expected"),
    [("mlartifacts", "no space left on the disk"), ("home", "no space left on the disk.*disk is full")],
)
def test_a_full_disk_leaves_a_failed_run_and_the_same_command_records(
    root: Path, project: Path, empty_database: Path, small: str, expected: str
) -> None:
    """Where the artefacts are, and where the database is; with room, the result is recorded."""
    from mlflow.tracking import MlflowClient

    (root / "reports" / "index.html").write_bytes(b"0123456789" * 20_000)
    curve = "".join(f"{step},{1 / step}\n" for step in range(1, 4000))
    (root / "reports" / "evaluate").mkdir()
    (root / "reports" / "evaluate" / "losses.csv").write_text(f"step,loss\n{curve}")
    home, kilobytes, copied = root, 64, ""
    if small == "home":
        home, kilobytes = root / "home", empty_database.stat().st_size // 1024 + 100
        copied = f'cp {empty_database} "$DISK"/mlflow.db'
    script = f"""
        set -e
        cd {root}
        {copied}
        export DYNAMICID_HOME={home}
        if "$PYTHON" -m pipelines.cli record evaluate 2> stderr; then exit 9; else echo "exit $?" > code; fi
        mount -o remount,size=90m "$DISK"
        "$PYTHON" -m pipelines.cli record evaluate > again
        cp {home}/mlflow.db after.db
    """
    done = disks.on_small_disk(project, root / small, kilobytes, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "code").read_text() == "exit 1\n"
    assert re.search(expected, disks.error_line(root / "stderr"))
    client = MlflowClient(f"sqlite:///{root / 'after.db'}")
    runs = client.search_runs(["1"], "tags.`dynamicid.stage` = 'evaluate'")
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]
    assert json.loads((root / "again").read_text())["evaluate"] == runs[0].info.run_id


def test_a_metric_that_is_not_measurable_has_a_tag_and_no_value(root: Path) -> None:
    from mlflow.tracking import MlflowClient

    file = root / "reports" / "metrics.json"
    document = json.loads(file.read_text())
    document["model"]["id_similarity"] = {"value": None, "reason": "recogniser: auc 0.6 < 0.9"}
    document["normalised"]["model"]["id_similarity"] = document["model"]["id_similarity"]
    document["judges"] = {
        "detector": {"faces_found": 1.0, "reason": None},
        "recogniser": {"auc": 0.6, "reason": "auc 0.6 < 0.9"},
    }
    file.write_text(json.dumps(document))
    dvc(root, "commit", "-q", "-f")
    values = stage_metrics(root, "evaluate")
    assert values == {}
    run_id = record_stage(root, "evaluate", load_params(root / "params.yaml"))
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    tags = client.get_run(run_id).data.tags
    rows = table(client, run_id, "all_metrics.json", root)["data"]
    assert ["judges.recogniser", "auc", 0.6, None, None, "auc 0.6 < 0.9", None] in rows
    assert "not measurable (recogniser: auc 0.6 < 0.9)" in tags["mlflow.note.content"]
    assert tags["dynamicid.not_measurable"] == "id_similarity"
    assert tags["dynamicid.not_measurable.recogniser"] == "auc 0.6 < 0.9"
    assert "dynamicid.not_measurable.detector" not in tags


def test_metrics_that_are_not_finite_are_left_out(root: Path) -> None:
    (root / "reports" / "train_imr" / "metrics.json").write_text('{"imr": NaN, "copy_source": 0.07}')
    assert stage_metrics(root, "train_imr") == {"copy_source": 0.07}


def test_a_stage_that_never_ran_is_named(root: Path) -> None:
    with pytest.raises(UserError, match="preprocess"):
        record_stage(root, "preprocess", load_params(root / "params.yaml"))
