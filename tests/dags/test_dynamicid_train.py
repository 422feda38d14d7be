"""The DAG has one task a stage with the edges that DVC has, a typed form, and nothing heavy at import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.chain import STAGE_NAMES

_DUMP = """
import json, sys, time
start = time.perf_counter()
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
dag = bag.dags.get("dynamicid_train")
heavy = sorted({"torch", "pyspark", "mlflow", "diffusers", "transformers", "great_expectations"} & set(sys.modules))
print("DUMP" + json.dumps({
    "errors": bag.import_errors,
    "edges": sorted([up, down] for up, task in dag.task_dict.items() for down in task.downstream_task_ids),
    "tasks": {name: {"retries": task.retries, "script": task.bash_command} for name, task in dag.task_dict.items()},
    "params": {name: dag.params.get_param(name).schema for name in dag.params},
    "heavy": heavy,
}))
"""


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> dict:
    home = tmp_path_factory.mktemp("airflow")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _DUMP, str(root / "dags")],
        env={**os.environ, "AIRFLOW_HOME": str(home), "PYTHONPATH": str(root / "dags")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.split("DUMP", 1)[1])


@pytest.fixture(scope="module")
def dvc_edges() -> set[tuple[str, str]]:
    """The edges of the stages as DVC itself sees them."""
    from dvc.repo import Repo

    with Repo(str(Path(__file__).parents[2])) as repo:
        return {
            (needed.name, stage.name)
            for stage, needed in repo.index.graph.edges
            if hasattr(stage, "name") and hasattr(needed, "name") and stage.name and needed.name
        }


def test_the_folder_imports_cleanly_and_lightly(dag: dict) -> None:
    assert dag["errors"] == {}
    assert dag["heavy"] == []


def test_stages_have_the_edges_of_dvc(dag: dict, dvc_edges: set[tuple[str, str]]) -> None:
    edges = {(up, down) for up, down in dag["edges"] if {up, down} <= set(STAGE_NAMES)}
    assert edges == dvc_edges
    assert len(edges) >= 5


def test_ingest_comes_first_and_register_last(dag: dict) -> None:
    edges = {tuple(edge) for edge in dag["edges"]}
    assert ("ingest", "validate") in edges
    assert ("evaluate", "save_run") in edges
    assert ("save_run", "register") in edges
    assert not [edge for edge in edges if edge[0] == "register"]


def test_each_stage_runs_through_dvc_and_retries(dag: dict) -> None:
    for name in STAGE_NAMES:
        assert dag["tasks"][name]["script"].endswith(f"pipelines.cli repro {name}")
        assert dag["tasks"][name]["retries"] >= 1


def test_no_form_value_is_a_template_in_a_script(dag: dict) -> None:
    for task in dag["tasks"].values():
        assert "{{" not in task["script"]


def test_the_form_is_typed(dag: dict) -> None:
    assert dag["params"]["profile"]["enum"] == ["sd15", "tiny"]
    assert dag["params"]["identities"]["type"] == "integer"
    assert dag["params"]["promote"]["type"] == "boolean"
    assert {"dataset_version", "anchoring_steps", "imr_steps"} <= set(dag["params"])


def test_dag_files_are_short_and_know_no_stage_code(project: Path) -> None:
    for file in (project / "dags").glob("*.py"):
        text = file.read_text()
        assert len(text.splitlines()) < 100
        assert "import torch" not in text
        assert "from pipelines" not in text
