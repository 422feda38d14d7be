"""The table of stages, dvc.yaml and the command line say the same."""

from __future__ import annotations

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
