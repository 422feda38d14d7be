"""`dynamicid app`: what it refuses before it loads a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.core.errors import UserError


def refused(*arguments: str) -> str:
    error = CliRunner().invoke(app, ["app", *arguments]).exception
    assert isinstance(error, UserError), error
    return str(error)


def test_a_public_address_needs_accounts(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "example.org"):
        assert f"--host {host}: other machines could reach the page" in refused("--host", host)
    assert "no such file" in refused("--host", "0.0.0.0", "--accounts", str(tmp_path / "missing"))


def test_an_unknown_model_is_named(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused("--adapter", "nowhere", "--params", str(project / "profiles" / "tiny.yaml"))
    assert "nowhere: no adapter here" in message
    assert not (tmp_path / ".dynamicid").exists()
