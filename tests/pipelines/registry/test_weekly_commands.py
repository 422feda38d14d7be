"""The commands of docs/guides/retrain.md for an ordinary week, in a checkout with two registered versions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.processes import dynamicid

SETTINGS = ("MLFLOW", "DYNAMICID")


@pytest.fixture(scope="module")
def checkout(registered: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: v1 is the champion, v2 was refused by the gates."""
    root = tmp_path_factory.mktemp("weekly") / "checkout"
    shutil.copytree(registered.root, root, symlinks=True)
    return root


def command(root: Path, *arguments: str, code: int = 0) -> Any:
    """Run a command and return the JSON of its last line, or stderr where it fails."""
    done = dynamicid(*arguments, cwd=root, without=SETTINGS, code=code)
    return json.loads(done.stdout.splitlines()[-1]) if code == 0 and done.stdout.strip() else done.stderr


def champion(root: Path) -> str:
    from pipelines.registry.registry import find_version, open_registry

    return str(find_version(open_registry(root), "models:/dynamicid@champion").version)


def test_a_person_overrules_the_gates_and_takes_it_back(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    refused = command(checkout, "promote", "models:/dynamicid/2", "--by", "ann", code=1)
    assert "--override-gates" in refused
    moved = command(checkout, "promote", "models:/dynamicid/2", "--by", "ann", "--override-gates")
    assert (moved["decision"], champion(checkout)) == ("promoted", "2")
    back = command(checkout, "rollback", "--by", "ann", "--reason", "complaints")
    assert (back["champion"], back["before"], champion(checkout)) == ("1", "2", "1")


def test_a_scheduled_run_without_new_data_would_be_skipped(checkout: Path) -> None:
    plan = command(checkout, "retrain", "plan", "--trigger", "schedule")
    assert plan["train"] is False
    assert plan["reason"].startswith("no new data: ")


def test_cleaning_says_what_would_go_and_keeps_it(checkout: Path) -> None:
    before = [path for path in checkout.rglob("*") if path.is_file() and ".git" not in path.parts]
    dynamicid("clean", cwd=checkout, without=SETTINGS)
    assert [path for path in before if not path.exists()] == []
    dynamicid("clean", "--apply", "--data", cwd=checkout, without=SETTINGS)
    assert (checkout / "mlflow.db").is_file()


def test_a_lost_database_is_restored_from_the_backup(checkout: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    dynamicid("backup", "--out", backup, cwd=checkout, without=SETTINGS)
    (checkout / "mlflow.db").unlink()
    dynamicid("restore", backup, cwd=checkout, without=SETTINGS)
    lineage = dynamicid("lineage", "models:/dynamicid/1", cwd=checkout, without=SETTINGS)
    assert "faces-v1" in lineage.stdout + lineage.stderr
