"""`dvc.yaml` lists all code that a stage depends on, and a change of this code runs the stage again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import get_args

import grimp
import pytest
import yaml

from pipelines.cli import COMMANDS
from pipelines.core.chain import stage_names, stages
from pipelines.core.errors import UserError
from pipelines.core.params import Params, load_params
from pipelines.core.sections.section import Section, keys_of, section_in
from tests.processes import dvc

# Imports that change no result of a stage: paths, errors, reading of parameters (DVC compares their values), reading of
# the adapter to start from (the parameter names a version by number, which never changes), versions of formats.
WITHOUT_EFFECT = ("pipelines.core.", "pipelines.registry.", "pipelines.versions.", "model.formats")
WITH_EFFECT = ("pipelines.core.row_schemas",)
NAMES = ("validate", "preprocess", "validate_processed", "train_anchoring", "train_imr", "evaluate")


def test_the_chain_is_read_from_dvc_yaml() -> None:
    assert stage_names() == NAMES
    anchoring = next(stage for stage in stages() if stage.name == "train_anchoring")
    assert anchoring.sections == ("base", "caches", "rights", "train_anchoring")
    assert anchoring.inputs == ("data/processed", "reports/validate_processed/verdict.json")
    assert anchoring.outputs == (
        "models/anchoring",
        "reports/train_anchoring/metrics.json",
        "reports/train_anchoring/losses.csv",
    )
    assert "model/network" in anchoring.code


def test_stages_need_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.core.chain.project_root", lambda: tmp_path)
    with pytest.raises(UserError, match=r"dvc.yaml: no such file; the stages of the chain run in a checkout"):
        stages()


@pytest.fixture(scope="module")
def imports(project: Path) -> grimp.ImportGraph:
    return grimp.build_graph("pipelines", "model", exclude_type_checking_imports=True, cache_dir=None)


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_lists_all_the_code_that_it_imports(name: str, imports: grimp.ImportGraph, project: Path) -> None:
    stage = next(stage for stage in stages() if stage.name == name)
    reached: set[str] = set()
    queue = {f"pipelines.stages.{name}"}
    while queue:
        reached |= queue
        imported = set().union(*(imports.find_modules_directly_imported_by(module) for module in queue))
        queue = {one for one in imported - reached if one in WITH_EFFECT or not one.startswith(WITHOUT_EFFECT)}
    listed = {project / path for path in stage.code}
    paths = (project.joinpath(*module.split(".")) for module in reached)
    files = [path.with_suffix(".py") for path in paths if not path.is_dir()]
    assert sorted(str(file) for file in files if not listed & {file, *file.parents}) == []
    # Sections of the whole parameters, which a stage and the evaluation get. Of `preprocess` train_anchoring and
    # validate_processed read only where the face pack is, and that is in their `deps`; both validations read what they
    # run on, which changes no verdict.
    whole = (file.read_text() for file in files if "params: Params" in file.read_text())
    read = {section.rstrip("_") for text in whole for section in re.findall(r"\bparams\.(\w+)\b", text)}
    assert read & set(Params.model_json_schema(by_alias=True)["properties"]) - {"format", "profile"} <= {
        *stage.sections,
        *(("preprocess",) if name in ("validate", "train_anchoring", "validate_processed") else ()),
        *(("validate",) if name == "validate_processed" else ()),
    }


@pytest.fixture(scope="module")
def locked(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the lock of every stage, and placeholders for the outputs."""
    root = tmp_path_factory.mktemp("locked") / "dynamicid"
    shutil.copytree(checkout, root)
    for path in {"data/faces", *(path for stage in stages() for path in stage.outputs)}:
        place = root / path
        if place.suffix:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("{}")
        else:
            place.mkdir(parents=True)
            (place / "part").write_text("x")
    dvc(root, "commit", "--force", "--quiet")
    return root


def _changed(root: Path) -> set[str]:
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return {name.partition(":")[2] or name for name in repo.status()}


def test_a_change_of_listed_code_runs_the_stage_again(locked: Path) -> None:
    assert not _changed(locked)
    # DVC treats all paths alike: one folder and one file are enough.
    for path in ("model/network", "pipelines/core/row_schemas.py"):
        place = locked / path
        file = place if place.is_file() else next(file for file in sorted(place.rglob("*.py")) if file.stat().st_size)
        whole = file.read_bytes()
        file.write_bytes(whole + b"\n# changed\n")
        assert _changed(locked) == {stage.name for stage in stages() if path in stage.code}, path
        file.write_bytes(whole)


def test_inputs_are_made_by_earlier_stages() -> None:
    made = {"data/faces"}
    for stage in stages():
        assert set(stage.inputs) <= made, stage.name
        made |= set(stage.outputs)


def test_no_parameter_that_dvc_yaml_names_may_be_null(project: Path) -> None:
    # Of null DVC says only `unexpected error`; such networks are in `fingerprints/`.
    for key in set(re.findall(r"\$\{([^}]+)\}", (project / "dvc.yaml").read_text())):
        *sections, last = key.split(".")
        section: type[Section] = Params
        for name in sections:
            section = section_in(keys_of(section)[name].annotation) or section
        assert type(None) not in get_args(keys_of(section)[last].annotation), key


def test_every_stage_is_a_command_that_dvc_calls(project: Path) -> None:
    entries = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    sections = load_params(project / "params.yaml").model_dump(by_alias=True)
    for stage in stages():
        assert stage.command in COMMANDS
        assert entries[stage.name]["cmd"].split()[:4] == ["python", "-m", "pipelines.cli", stage.command]
        assert {stage.name, *stage.sections} <= set(sections)
