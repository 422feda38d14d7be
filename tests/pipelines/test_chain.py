"""The table of stages, dvc.yaml and the command line say the same."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from pipelines.chain import STAGES, Stage
from pipelines.cli import COMMANDS
from pipelines.params import load_params


@pytest.fixture(scope="module")
def dvc_stages() -> dict:
    return yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text())["stages"]


def _paths(entries: list) -> set[str]:
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}


def test_dvc_has_the_stages_of_the_table_in_its_order(dvc_stages: dict) -> None:
    assert list(dvc_stages) == [stage.name for stage in STAGES]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_stage_agrees_with_dvc(stage: Stage, dvc_stages: dict) -> None:
    entry = dvc_stages[stage.name]
    assert set(stage.inputs) <= _paths(entry["deps"])
    made = {path for kind in ("outs", "metrics", "plots") for path in _paths(entry.get(kind, []))}
    assert made == set(stage.outputs)
    assert set(entry["params"]) == set(stage.sections)
    assert entry["cmd"].split()[:4] == ["python", "-m", "pipelines.cli", stage.command]


def _imported(file: Path, project: Path) -> set[Path]:
    """Return the files of `model` and `pipelines` that a file imports when it is imported or run, not for types."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    places = (project.joinpath(*name.split(".")).with_suffix(".py") for name in names)
    return {place for place in places if place.is_file()}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_depends_on_all_of_the_model_that_it_runs(stage: Stage, dvc_stages: dict, project: Path) -> None:
    reached: set[Path] = set()
    coming = {project / "pipelines" / "stages" / f"{stage.name}.py"}
    while coming:
        reached |= coming
        coming = set().union(*(_imported(file, project) for file in coming)) - reached
    used = {file.relative_to(project) for file in reached}
    known = {Path(place) for place in _paths(dvc_stages[stage.name]["deps"])}
    missing = sorted(str(file) for file in used if file.parts[0] == "model" and not known & {file, *file.parents})
    assert not missing


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_stage_module_declares_the_sections_of_the_table(stage: Stage) -> None:
    import importlib

    module = importlib.import_module(f"pipelines.stages.{stage.name}")
    assert set(module.SECTIONS) == set(stage.sections)


def test_inputs_are_made_by_earlier_stages() -> None:
    made = {"data/faces"}
    for stage in STAGES:
        assert set(stage.inputs) <= made, stage.name
        made |= set(stage.outputs)


def test_every_stage_is_a_command(project: Path) -> None:
    assert {stage.command for stage in STAGES} <= set(COMMANDS)
    sections = load_params(project / "params.yaml").model_dump(by_alias=True)
    assert {stage.name for stage in STAGES} <= set(sections)
