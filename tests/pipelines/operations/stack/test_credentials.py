"""Passwords are generated once, readable by the owner alone, and never overwritten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.operations.stack.credentials import FILE, credentials, read_env
from pipelines.operations.stack.postgres import find_programs
from pipelines.operations.stack.settings import LOOPBACK, Ports, Stack, saved_ports
from tests.processes import git


def test_they_are_generated_once_for_the_owner_only(tmp_path: Path) -> None:
    first = credentials(tmp_path)
    file = tmp_path / FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert credentials(tmp_path) == first == read_env(file)
    assert len(set(first.values())) == len(first)
    assert all(len(value) >= 32 for value in first.values())
    assert credentials(tmp_path / "other")["AIRFLOW_ADMIN_PASSWORD"] != first["AIRFLOW_ADMIN_PASSWORD"]


def test_a_missing_one_is_added_and_the_others_stay(tmp_path: Path) -> None:
    first = credentials(tmp_path)
    file = tmp_path / FILE
    kept = [line for line in file.read_text().splitlines() if not line.startswith("S3_ACCESS_KEY")]
    file.write_text("\n".join(kept) + "\n")
    second = credentials(tmp_path)
    assert second["S3_ACCESS_KEY"] != first["S3_ACCESS_KEY"]
    assert {**second, "S3_ACCESS_KEY": ""} == {**first, "S3_ACCESS_KEY": ""}


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    credentials(tmp_path)
    (tmp_path / FILE).chmod(0o644)
    with pytest.raises(UserError, match="others can read it"):
        credentials(tmp_path)


def test_git_ignores_them(project: Path) -> None:
    git(project, "check-ignore", "--quiet", f".dynamicid/stack/{FILE}")


def test_an_invalid_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.env").write_text("A=1\nnonsense\n")
    with pytest.raises(UserError, match="line 2: expected NAME=value"):
        read_env(tmp_path / "x.env")


def test_processes_do_not_inherit_server_settings(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "SequentialExecutor")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "sqlite:///other.db")
    monkeypatch.setenv("PGSERVICE", "other")
    values = Stack(project, tmp_path).environment()
    assert values["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert values["MLFLOW_BACKEND_STORE_URI"] == "postgresql+psycopg2:///mlflow"
    assert "PGSERVICE" not in values
    assert values["PGHOST"] == values["MLFLOW_HOST"] == values["AIRFLOW__API__HOST"] == LOOPBACK


def test_taken_ports_are_named(project: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"{port} \(mlflow\)"):
            Stack(project, tmp_path, Ports(mlflow=port)).check_ports()


def test_missing_postgresql_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="apt-get install postgresql"):
        find_programs(search=str(tmp_path))


def test_a_stack_that_was_never_started_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape("`make stack` starts one")):
        saved_ports(tmp_path)
