"""The command line: lazy, with the exit codes that other programs rely on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.cli import COMMANDS
from tests.processes import dynamicid, run


def test_help_lists_every_command_and_imports_nothing_heavy(project: Path) -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli import app; "
        "done = CliRunner().invoke(app, ['--help']); print(done.stdout); "
        "heavy = {'torch', 'pyspark', 'mlflow', 'diffusers', 'transformers', 'great_expectations', 'airflow'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = run(sys.executable, "-c", script, cwd=project)
    for name in COMMANDS:
        assert name in done.stdout


def test_unknown_parameter_key_is_exit_2_and_one_line(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text((project / "profiles" / "tiny.yaml").read_text() + "surprise: 1\n")
    done = dynamicid("validate", tmp_path, "--params", file, cwd=project, code=2)
    assert "unknown key surprise" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_override_is_refused_under_dvc(project: Path) -> None:
    wrong = ("validate", "--set", "validate.min_photos=1")
    done = dynamicid(*wrong, cwd=project, env={"DVC_STAGE": "validate"}, code=2)
    assert "DVC would not see" in done.stderr


def test_configure_writes_a_profile_with_changes(tmp_path: Path) -> None:
    dynamicid("configure", "--profile", "sd15", "--set", "train_imr.steps=11", cwd=tmp_path)
    text = (tmp_path / "params.yaml").read_text()
    assert "profile: sd15" in text
    assert "steps: 11" in text
    dynamicid("configure", "--set", "train_imr.helpers=4", cwd=tmp_path)
    assert "steps: 11" in (tmp_path / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("configure", "--profile", "huge"), "huge"),
        (("repro", "trian_imr"), "trian_imr"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_wrong_use_is_exit_2_and_names_it(project: Path, arguments: tuple[str, ...], named: str) -> None:
    assert named in dynamicid(*arguments, cwd=project, code=2).stderr
