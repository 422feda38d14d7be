"""The command line: lazy imports, JSON results, and exit codes that other programs rely on."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pipelines.cli import COMMANDS, PANELS, _commit, app, main
from tests.processes import commit_all, dynamicid, git, run

DRAW = ("generate", "--reference", "a.jpg", "--prompt", "a man", "--out", "a.png")
HEAVY = "{'torch', 'pyspark', 'mlflow', 'diffusers', 'transformers', 'great_expectations', 'airflow', 'pandas'}"
LIGHT = """
import sys
from pipelines.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
assert not HEAVY & set(sys.modules), HEAVY & set(sys.modules)
""".replace("HEAVY", HEAVY)


def run_light(*arguments: str, cwd: Path, **env: str) -> str:
    """Run the command line in a process that fails if it imports a heavy library; return what it prints."""
    return run(sys.executable, "-c", LIGHT, *arguments, cwd=cwd, env=env).stdout


def test_help_lists_every_command_in_its_panel_and_imports_nothing_heavy(project: Path) -> None:
    shown = run_light("--help", cwd=project)
    positions = [shown.index(f" {panel} ─") for panel in PANELS]
    assert positions == sorted(positions)
    for name in COMMANDS:
        assert f" {name} " in shown


def test_the_version_is_that_of_the_package(project: Path) -> None:
    shown = run_light("--version", cwd=project)
    assert shown.startswith(f"dynamicid {version('dynamicid')}")
    if (project / ".git").exists():
        assert f"(commit {git(project, 'rev-parse', '--short=12', 'HEAD').strip()}" in shown


def test_the_version_of_an_installed_package_names_no_commit_of_a_repository_around_it(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("", encoding="utf-8")
    commit_all(tmp_path, "Another project")
    assert _commit(tmp_path).startswith(" (commit ")
    (tmp_path / "site-packages").mkdir()
    assert _commit(tmp_path / "site-packages") == ""


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("generat", "'generate'"),
        ("dataset shw", "'show'"),
        ("generate --promt x", "--prompt"),
        ("stack strat", "'start'"),
        ("--verison", "--version"),
    ],
)
def test_a_misspelt_command_subcommand_or_option_gets_the_nearest(typed: str, meant: str) -> None:
    done = CliRunner().invoke(app, typed.split(), env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert done.exit_code == 2
    assert meant in done.output


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("dynamicid train-", {"train-anchoring", "train-imr"}),
        ("dynamicid inbox re", {"ready", "refuse"}),
        ("dynamicid validate --js", {"--json"}),
    ],
)
def test_the_shell_completes_what_is_imported_lazily(project: Path, typed: str, completed: set[str]) -> None:
    env = {"_DYNAMICID_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    assert set(run_light(cwd=project, **env).split()) == completed


def test_the_script_for_the_shell_is_shown(project: Path) -> None:
    env = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert "_DYNAMICID_COMPLETE=complete_bash" in run_light("--show-completion", "bash", cwd=project, **env)


def test_every_command_takes_json() -> None:
    def leaves(command: Any) -> Iterator[Any]:
        if not hasattr(command, "list_commands"):
            yield command
            return
        for name in command.list_commands(None):
            yield from leaves(command.get_command(None, name))

    lacking = [leaf.name for leaf in leaves(get_command(app)) if not any("--json" in each.opts for each in leaf.params)]
    assert lacking == []


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("configure", "--profile", "tiny"), "changes"),
        (("synthesize", "--identities", "1", "--photos", "1", "--size", "32", "--out", "people"), "people"),
        (("dataset", "show"), "tag"),
        (("inbox", "ready"), "ready"),
        (("inbox", "done", "--run-id", "one", "--inbox", "inbox"), "moved_to"),
        (("retrain", "plan", "--trigger", "schedule"), "reason"),
        (("clean", "--dry-run"), "items"),
        (("stack", "credentials", "--state", "state"), "credentials"),
    ],
)
def test_a_result_is_one_json_object_on_stdout(
    command: tuple[str, ...], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    (tmp_path / "params.yaml").write_bytes((project / "profiles" / "tiny.yaml").read_bytes())
    commit_all(tmp_path, "Parameters")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    assert key in json.loads(done.stdout)


def test_unknown_parameter_key_is_exit_2_and_one_line(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text((project / "profiles" / "tiny.yaml").read_text() + "surprise: 1\n")
    done = dynamicid("validate", tmp_path, "--params", file, cwd=project, code=2)
    assert "unknown key surprise" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_under_dvc_a_wrong_key_is_named_with_the_way_back(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text((project / "profiles" / "tiny.yaml").read_text() + "surprise: 1\n")
    call = ("validate", tmp_path, "--params", file)
    done = dynamicid(*call, cwd=project, env={"DVC_STAGE": "validate"}, code=2)
    assert f"unknown key surprise (`git checkout {file}` takes back what an experiment set)" in done.stderr
    # Where DVC made a clone for a queued experiment, there is nothing to take back.
    clone = tmp_path / ".dvc" / "tmp" / "exps" / "one"
    clone.mkdir(parents=True)
    queued = dynamicid(*call, cwd=clone, env={"DVC_STAGE": "validate"}, code=2)
    assert "takes back" not in queued.stderr


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
        (("configure", "--profile", "../params"), "there are flux, photographs, sd15, sdxl, showcase, tiny, tiny_dit"),
        ((*DRAW, "--seed", str(2**63)), "'--seed'"),
        ((*DRAW, "--steps", "1001"), "'--steps'"),
        (("repro", "trian_imr"), "trian_imr"),
        (("frobnicate",), "frobnicate"),
        (("evalute",), "Did you mean 'evaluate'"),
        (("dataset", "lst"), "Did you mean 'list'"),
        (("clean", "--apply", "--dry-run"), "--dry-run and --apply: give one of them"),
    ],
)
def test_wrong_use_is_exit_2_and_names_it(project: Path, arguments: tuple[str, ...], named: str) -> None:
    assert named in dynamicid(*arguments, cwd=project, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("restore", "no_object"), 2, "no_object/manifest.json: damaged"),
        (("restore", "cut"), 2, "cut/manifest.json: damaged"),
        (("configure", "--profile", "tiny", "--params", "nowhere/params.yaml"), 1, "nowhere/params.yaml: No such file"),
        (("configure", "--profile", "tiny", "--params", "cut"), 1, "cut: Is a directory"),
        (("lineage", "faces-v9"), 1, "faces-v9: no tag or commit of this checkout, and no run or hash of a version"),
        (("lineage", "faces-v9", "--json"), 1, "faces-v9: no tag or commit of this checkout"),
        (("lineage", "faces-v1"), 1, "faces-v1: no version of dynamicid came from it"),
        (("lineage", "faces-v1", "--json"), 1, "faces-v1: no version of dynamicid came from it"),
    ],
)
def test_files_and_names_that_do_not_fit_are_one_line(
    arguments: tuple[str, ...], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("no_object", "[]"), ("cut", '{"made": "tod')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(text)
    commit_all(tmp_path, "Files")
    git(tmp_path, "tag", "faces-v1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    out, shown = io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit) as end, contextlib.redirect_stdout(out), contextlib.redirect_stderr(shown):
        main([*arguments])
    assert (end.value.code, out.getvalue()) == (code, "")
    assert f"dynamicid: {message}" in shown.getvalue()


def test_an_error_of_the_system_without_a_file_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pipelines.cli.app", fail)
    with pytest.raises(OSError, match="Input/output"):
        main([])


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (
            "[Errno 28] No space left on device",
            "no space left on the disk for /there/b; complete results are untouched",
        ),
        ("[Errno 30] Read-only file system: '/there/b'", "/there/b: Read-only file system"),
        ("cut", "/there/b: cut"),
    ],
)
def test_a_folder_that_cannot_be_copied_is_one_line_about_its_first_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reason: str, line: str
) -> None:
    def fail(**_: Any) -> None:
        raise shutil.Error([("/here/b", "/there/b", reason), ("/here/c", "/there/c", reason)])

    monkeypatch.setattr("pipelines.cli.app", fail)
    with pytest.raises(SystemExit) as end:
        main([])
    shown = capsys.readouterr().err
    assert (end.value.code, shown.count("\n")) == (1, 1)
    assert line in shown


def test_without_a_checkout_the_way_to_parameters_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.commands.configure.project_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["configure", "--profile", "tiny"])
    assert "copy a profile from a checkout of the project, and name the copy with --params" in str(done.exception)
    done = CliRunner().invoke(app, ["configure"])
    assert "--params names another file" in str(done.exception)
