"""`dynamicid app`: what it refuses before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.core.errors import UserError


def run(*arguments: str) -> Exception | None:
    found = CliRunner().invoke(app, ["app", *arguments]).exception
    assert not isinstance(found, SystemExit), found
    return found


def test_other_machines_need_accounts(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "example.org"):
        error = run("--host", host)
        assert isinstance(error, UserError)
        assert f"--host {host}: other machines could reach the page" in str(error)
    assert "no such file" in str(run("--host", "0.0.0.0", "--accounts", str(tmp_path / "nobody")))


def test_an_unknown_model_is_named(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = run("--adapter", "nowhere", "--params", str(project / "profiles" / "tiny.yaml"))
    assert isinstance(error, UserError)
    assert "nowhere: no adapter here" in str(error)
    assert not (tmp_path / ".dynamicid").exists()
