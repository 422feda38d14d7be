"""The DAGs: one task per stage with the edges of DVC, a typed form, and no heavy import."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from pipelines.core.chain import FACES, stage_names, stages
from pipelines.core.sections.training import Loop
from pipelines.registry.training_run import Form
from tests.processes import run

# How a run was started: Airflow's word, and what somebody typed.
_STARTED = (
    ("manual", {}),
    ("scheduled", {}),
    ("asset_triggered", {}),
    ("backfill", {}),
    ("backfill", {"identities": 8}),
)
_DUMP = """
import json, sys, time
from types import SimpleNamespace
from airflow.dag_processing.dagbag import DagBag
start = time.perf_counter()
bag = DagBag(sys.argv[1])
seconds = time.perf_counter() - start
dag = bag.dags.get("dynamicid_train")
heavy = sorted({"torch", "pyspark", "mlflow", "diffusers", "transformers", "great_expectations"} & set(sys.modules))
print("DUMP" + json.dumps({
    "errors": bag.import_errors,
    "params": {
        name: {**dag.params.get_param(name).schema, "description": dag.params.get_param(name).description}
        for name in dag.params
    },
    "defaults": dag.params.validate(),
    "heavy": heavy,
    "seconds": seconds,
    "triggers": [
        dag.user_defined_macros["trigger_of"](SimpleNamespace(run_type=kind, conf=conf))
        for kind, conf in json.loads(sys.argv[2])
    ],
    "dags": {
        name: {
            "catchup": one.catchup,
            "max_active_runs": one.max_active_runs,
            "tags": sorted(one.tags),
            "doc": one.doc_md,
            "paused": one.is_paused_upon_creation,
            "timetable": type(one.timetable).__name__,
            "start_date": one.start_date and one.start_date.isoformat(),
            "edges": [[up, down] for up, task in one.task_dict.items() for down in task.downstream_task_ids],
            "tasks": {
                task.task_id: {
                    "owner": task.owner,
                    "pool": task.pool,
                    "rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
                    "retries": task.retries,
                    "timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
                    "backoff": bool(task.retry_exponential_backoff),
                    "callbacks": len(task.on_failure_callback or ()),
                    "script": getattr(task, "bash_command", ""),
                    "doc": task.doc_md or "",
                }
                for task in one.task_dict.values()
            },
        }
        for name, one in bag.dags.items()
    },
}))
"""


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> dict:
    home = tmp_path_factory.mktemp("airflow")
    root = Path(__file__).parents[2]
    env = {"AIRFLOW_HOME": str(home), "PYTHONPATH": str(root / "dags")}
    done = run(sys.executable, "-c", _DUMP, root / "dags", json.dumps(_STARTED), env=env)
    return json.loads(done.stdout.split("DUMP", 1)[1])


@pytest.fixture(scope="module")
def dvc_edges() -> set[tuple[str, str]]:
    """The edges between stages according to DVC."""
    from dvc.repo import Repo

    with Repo(str(Path(__file__).parents[2])) as repo:
        return {
            (needed.name, stage.name)
            for stage, needed in repo.index.graph.edges
            if hasattr(stage, "name") and hasattr(needed, "name") and stage.name and needed.name
        }


def _edges(dag: dict, name: str = "dynamicid_train") -> set[tuple[str, str]]:
    return {(up, down) for up, down in dag["dags"][name]["edges"]}


def test_the_folder_is_parsed_cleanly_lightly_and_within_two_seconds(dag: dict) -> None:
    assert dag["errors"] == {}
    assert dag["heavy"] == []
    assert 0 < dag["seconds"] < 2


def test_every_dag_is_documented_bounded_and_never_catches_up(dag: dict) -> None:
    assert set(dag["dags"]) == {"dynamicid_ingest", "dynamicid_maintenance", "dynamicid_train"}
    for each in dag["dags"].values():
        assert each["catchup"] is False
        assert 1 <= each["max_active_runs"] <= 4
        assert "dynamicid" in each["tags"]
        assert len(each["doc"].split()) > 30
        for name, task in each["tasks"].items():
            assert task["owner"] == "dynamicid"
            assert task["backoff"], name
            assert task["callbacks"] == 1, name
            # Tasks that wait for photos or a person occupy no worker and have another limit.
            assert task["timeout"] or name in ("wait_for_photos", "ask_a_person"), name


def test_every_task_says_what_it_does_reads_and_writes_and_what_to_do_when_it_fails(dag: dict) -> None:
    for each in dag["dags"].values():
        for name, task in each["tasks"].items():
            does, *rest = [part for part in task["doc"].split("\n") if part]
            assert len(does.split()) >= 4, name
            assert [line.partition(":")[0] for line in rest if line.startswith("* ")] == [
                "* Reads",
                "* Writes",
                "* When it fails",
            ], name
            command = task["script"].partition("pipelines.cli ")[2].partition(" --skip-code")[0]
            command = command.rpartition(" -- ")[2]  # after the one that enters the workspace
            assert (f"Command: `dynamicid {command}`" in rest) is bool(command), name


def test_the_documentation_of_a_stage_is_that_of_dvc(dag: dict) -> None:
    for stage in stages():
        doc = dag["dags"]["dynamicid_train"]["tasks"][stage.name]["doc"]
        assert stage.description[1:] in doc
        assert all(f"`{path}`" in doc for path in stage.outputs)


def test_training_is_triggered_by_data_or_time_and_ingestion_always_waits(dag: dict) -> None:
    assert dag["dags"]["dynamicid_train"]["timetable"] == "AssetOrTimeSchedule"
    ingest = dag["dags"]["dynamicid_ingest"]
    assert (ingest["timetable"], ingest["max_active_runs"]) == ("ContinuousTimetable", 1)
    assert ingest["start_date"], "without a start date all runs of a continuous schedule get the same date"


def test_scarce_resources_have_pools_and_promotion_has_one_slot(dag: dict, project: Path) -> None:
    pools = json.loads((project / "docker" / "pools.json").read_text())
    tasks = dag["dags"]["dynamicid_train"]["tasks"]
    assert {tasks[name]["pool"] for name in ("train_anchoring", "train_imr", "evaluate")} == {"dynamicid_gpu"}
    assert tasks["preprocess"]["pool"] == "dynamicid_spark"
    assert {tasks[name]["pool"] for name in ("register", "decide")} == {"dynamicid_promotion"}
    assert pools["dynamicid_promotion"]["slots"] == 1
    used = {task["pool"] for each in dag["dags"].values() for task in each["tasks"].values()} - {"default_pool"}
    assert used == set(pools)


def test_ingestion_validates_before_it_publishes(dag: dict) -> None:
    edges = _edges(dag, "dynamicid_ingest")
    order = ["wait_for_photos", "workspace", "take", "ingest", "validate", "publish", "announce", "done"]
    assert {*itertools.pairwise(order), ("validate", "done"), ("done", "remove_workspace")} <= edges


def test_housekeeping_runs_by_itself_and_goes_on_after_a_failed_backup(dag: dict) -> None:
    found = dag["dags"]["dynamicid_maintenance"]
    assert (found["timetable"], found["max_active_runs"], found["paused"]) == ("CronTriggerTimetable", 1, False)
    rules = {name: task["rule"] for name, task in found["tasks"].items()}
    assert rules == {
        "backup": "all_success",
        "clean": "all_done",
        "clean_inbox": "all_success",
        "clean_airflow": "all_done",
        "outcome": "one_failed",
    }
    ends = {(name, "outcome") for name in rules if name != "outcome"}
    assert _edges(dag, "dynamicid_maintenance") == {("backup", "clean"), ("backup", "clean_airflow"), *ends}


def test_stages_have_the_edges_of_dvc(dag: dict, dvc_edges: set[tuple[str, str]]) -> None:
    edges = {(up, down) for up, down in _edges(dag) if {up, down} <= set(stage_names())}
    assert edges == dvc_edges
    assert len(edges) >= 5


def test_ingest_comes_first_and_a_person_decides_after_register(dag: dict) -> None:
    edges = _edges(dag)
    assert {
        ("ingest", "doctor"),
        ("doctor", "validate"),
        ("validate_processed", "drift"),
        ("drift", "train_anchoring"),
    } <= edges
    order = ["evaluate", "save_run", "register", "person_asked", "ask_a_person", "decide"]
    assert set(itertools.pairwise(order)) <= edges
    assert [edge for edge in edges if edge[0] == "register"] == [("register", "person_asked")]


def test_each_stage_runs_through_dvc_and_retries(dag: dict) -> None:
    tasks = dag["dags"]["dynamicid_train"]["tasks"]
    for name in stage_names():
        assert tasks[name]["script"].endswith(f" -- repro {name}")
        assert tasks[name]["retries"] >= 1


def test_every_command_is_one_fixed_call_of_the_command_line(dag: dict) -> None:
    tasks = {name: task["script"] for each in dag["dags"].values() for name, task in each["tasks"].items()}
    assert "airflow db clean" in tasks.pop("clean_airflow")
    scripts = [script for script in tasks.values() if script]
    assert len(scripts) >= 20
    for script in scripts:
        assert re.fullmatch(r'exec "\$PYTHON" -m pipelines\.cli( [a-z0-9_./-]+)+', script), script
        assert "xcom" not in script, "keys, not paths: another machine may run it"


def test_a_stage_brings_what_dvc_keeps_of_its_inputs(dag: dict) -> None:
    scripts = {name: task["script"] for name, task in dag["dags"]["dynamicid_train"]["tasks"].items()}
    for stage in stages():
        kept = [path for path in stage.inputs if path == FACES or any(path in one.outputs for one in stages())]
        assert scripts[stage.name].count("--bring") == len(kept) > 0
        assert all(f"--bring {path} " in scripts[stage.name] for path in kept)
    assert "--bring data/processed --bring models/anchoring --" in scripts["train_imr"]


@pytest.mark.nightly
def test_text_typed_into_the_form_is_never_executed(checkout: Path, tmp_path: Path, run_dag) -> None:
    made = tmp_path / "made-by-a-shell"
    typed = f"it's `touch {made}` $(touch {made}) \"; touch {made}; {{{{ 1 + 1 }}}}"
    own = shutil.copytree(checkout, tmp_path / "dynamicid")
    result = run_dag(own, "dynamicid_train", {"overrides": [f"evaluate.people={typed}"]})
    assert not made.exists()
    states = {name: state for name, state in result["tasks"].items() if state != "upstream_failed"}
    assert states == {"plan": "success", "workspace": "success", "ingest": "failed"}
    assert f"evaluate.people = {typed!r}: Input should be a valid integer" in result["log"]


def test_the_form_is_typed(dag: dict, project: Path) -> None:
    profiles = sorted(path.stem for path in (project / "profiles").glob("*.yaml"))
    assert {"sd15", "tiny"} <= set(profiles)
    assert dag["params"]["profile"]["enum"] == [None, *profiles]
    types = {name: dag["params"][name]["type"] for name in ("identities", "promote", "human_decision")}
    assert types == {"identities": "integer", "promote": "boolean", "human_decision": "boolean"}
    assert dag["params"]["start_from"]["enum"] == [None, "parameters", "scratch", "champion"]
    for name in ("profile", "start_from"):
        assert "null" in dag["params"][name]["values_display"], "Airflow's form would show the word null"
    # A scheduled run has no form, so every value has a default, the same as on the command line.
    assert dag["defaults"] == Form().model_dump(mode="json")


def test_the_form_says_what_the_parameter_reference_says(dag: dict, project: Path) -> None:
    fields = Form.model_json_schema()["properties"]
    page = (project / "docs" / "reference" / "parameters.md").read_text()
    table = page.partition("## The form of dynamicid_train")[2]
    for name, field in fields.items():
        assert dag["params"][name]["description"] == field["description"]
        assert dag["params"][name]["description_md"] == field["description"], "with names as code"
        assert f"| `{name}` |" in table
        assert f"| {field['description']} |" in table
    assert page.count(Loop.model_fields["steps"].description) >= 4
    assert fields["anchoring_steps"]["description"].startswith(
        f"train_anchoring.steps: {Loop.model_fields['steps'].description}"
    )


def test_a_backfill_is_what_the_schedule_left_out_unless_somebody_fills_in_a_form(dag: dict) -> None:
    assert dag["triggers"] == ["hand", "schedule", "data", "schedule", "hand"]


def test_dag_files_are_short_and_import_no_stage_code(project: Path) -> None:
    for file in (project / "dags").glob("*.py"):
        text = file.read_text()
        assert len(text.splitlines()) < 100
        assert "import torch" not in text
        assert "from pipelines" not in text
