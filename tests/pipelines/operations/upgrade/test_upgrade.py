"""Files of an older release: listed, backed up and brought up to date; a second upgrade has nothing to do."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.formats.table import TRACKING
from pipelines.operations.backup.backup import read_backup
from pipelines.operations.stack.settings import Ports, saved_ports
from pipelines.operations.upgrade import tracking
from pipelines.operations.upgrade import upgrade as operation
from pipelines.operations.upgrade.survey import survey
from pipelines.registry.tracking import connect
from tests.processes import PROJECT, commit_all, dynamicid

# A revision of the tables of MLflow 2.22, and one that no MLflow has.
OLDER, UNKNOWN = "0584bdc529eb", "ffffffffffff"
# What differs between two upgrades: the bytes of the database, and the backups.
KEPT = ("mlflow.db", ".dynamicid/before_upgrade")


def files_of(root: Path) -> dict[str, bytes]:
    inside = (path for path in root.rglob("*") if path.is_file() and ".git" not in path.relative_to(root).parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in inside if path.suffix != ".lock"}


@pytest.fixture
def old(project: Path, mlflow_checkout: Path) -> Path:
    """A checkout with parameters, a profile, a stack and a database that state no format."""
    root = mlflow_checkout
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text())
    del tree["format"], tree["preprocess"]["spark"]
    text = yaml.safe_dump(tree, sort_keys=False)
    (root / "params.yaml").write_text("# ours\n" + text.replace("seed: 0\n", "seed: 0  # why not\n"))
    (root / "profiles").mkdir()
    (root / "profiles" / "team.yaml").write_text("extends: tiny\ntrain_imr:\n  steps: 1e+2  # 100\n")
    stack = root / ".dynamicid" / "stack"
    stack.mkdir(parents=True)
    (stack / "ports.json").write_text(json.dumps({"postgres": 1, "airflow": 2, "mlflow": 3}))
    (root / "mlartifacts" / "run").mkdir(parents=True)
    (root / "mlartifacts" / "run" / "metrics.json").write_text("{}")
    (root / ".gitignore").write_text("/mlartifacts/\n/mlflow.db*\n/.dynamicid/\n")
    connect(root)
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute("DELETE FROM experiment_tags")
    commit_all(root, "old files")
    return root


def changes(root: Path) -> dict[str, str]:
    return {item.place: item.change for item in survey(root) if item.change is not None}


def test_a_dry_run_lists_and_changes_nothing(old: Path) -> None:
    before = files_of(old)
    done = dynamicid("upgrade", cwd=old)
    assert files_of(old) == before
    listed = json.loads(done.stdout)
    assert listed["applied"] is False
    assert {item["place"]: item["version"] for item in listed["items"]} == {
        "params.yaml": 1,
        "profiles/team.yaml": 1,
        ".dynamicid/stack/ports.json": 1,
        "mlflow.db": 1,
    }
    assert "params.yaml: parameters in format 1: rewritten in format 5, with its comments" in done.stderr
    assert "4 would change; --apply makes a backup and changes them" in done.stderr


def test_older_files_are_backed_up_and_brought_up_to_date(old: Path, tmp_path: Path) -> None:
    before = files_of(old)
    done = dynamicid("upgrade", "--apply", "--backup", tmp_path / "saved", cwd=old)
    assert json.loads(done.stdout)["backup"] == str(tmp_path / "saved")
    text = (old / "params.yaml").read_text()
    assert text.startswith("# ours\nformat: 5\nprofile: tiny\n")
    assert "seed: 0  # why not\n" in text
    assert yaml.safe_load(text)["preprocess"]["spark"] == {}
    assert (old / "profiles" / "team.yaml").read_text() == (
        "format: 5\nextends: tiny\ntrain_imr:\n  steps: 1e+2  # 100\n"
    )
    assert saved_ports(old / ".dynamicid" / "stack") == Ports(1, 2, 3)
    assert tracking.state_of(old / "mlflow.db").version == TRACKING.version
    saved = tmp_path / "saved"
    for name in ("params.yaml", "profiles/team.yaml", ".dynamicid/stack/ports.json"):
        assert (saved / "files" / name).read_bytes() == before[name]
    assert set(read_backup(saved / "databases").databases()) == {"mlflow"}
    now = files_of(old)
    again = dynamicid("upgrade", "--apply", cwd=old)
    assert json.loads(again.stdout)["applied"] is False
    assert "nothing to do" in again.stderr
    assert files_of(old) == now


@pytest.mark.parametrize("killed_at", range(4))
def test_an_upgrade_that_was_killed_is_finished_by_the_next(old: Path, tmp_path: Path, killed_at: int) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(old, whole)
    operation.upgrade(whole, tmp_path / "first")
    place = list(changes(old))[killed_at]
    command = (sys.executable, "-m", "pipelines.cli", "upgrade", "--apply")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, cwd=old, env=environment, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert any(line.startswith(place) for line in running.stderr)
        running.kill()
    operation.upgrade(old)
    assert not changes(old)
    parts = [{n: b for n, b in files_of(root).items() if not n.startswith(KEPT)} for root in (old, whole)]
    assert parts[0] == parts[1]
    saved = [file.read_bytes() for file in (old / ".dynamicid" / "before_upgrade").rglob("files/params.yaml")]
    assert saved
    assert all(b"format" not in text.split(b"\n")[1] for text in saved)


def test_a_newer_file_is_named_and_nothing_changes(old: Path, tmp_path: Path) -> None:
    (old / "profiles" / "next.yaml").write_text("format: 6\nextends: tiny\n")
    store = old / ".dynamicid" / "cache" / "latents" / "0"
    store.mkdir(parents=True)
    (store / "store.json").write_text(json.dumps({"format": 7, "shape": [1], "dtype": "float16"}))
    before = files_of(old)
    with pytest.raises(UserError) as refused:
        operation.upgrade(old, tmp_path / "saved")
    assert "profiles/next.yaml: parameters in format 6, this program reads formats up to 5" in str(refused.value)
    assert "store.json: a cache of records in format 7" in str(refused.value)
    assert files_of(old) == before
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("line", [b'{"when": "2026', b"[1]", b"\xff\xfe{"])
def test_a_damaged_list_of_the_forgotten_is_named(old: Path, line: bytes) -> None:
    (old / "data").mkdir()
    (old / "data" / "forgotten.jsonl").write_bytes(line + b"\n")
    with pytest.raises(UserError, match=r"forgotten.jsonl, line 1: the list of the forgotten is"):
        survey(old)


def test_tables_of_an_older_mlflow_are_migrated(old: Path, tmp_path: Path) -> None:
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    file = old / "mlflow.db"
    file.unlink()
    Base.metadata.create_all(create_engine(f"sqlite:///{file}"))
    command.upgrade(_get_alembic_config(f"sqlite:///{file}"), OLDER)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (1, 'dynamicid', 'active')"
        )
    assert changes(old)["mlflow.db"].startswith("tables migrated to those of MLflow")
    operation.upgrade(old, tmp_path / "saved")
    assert tracking.state_of(file) == tracking.DatabaseState(current=True, version=TRACKING.version)
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT name FROM experiments").fetchall() == [("dynamicid",)]
    assert "mlflow.db" not in changes(old)


def test_a_database_of_a_newer_mlflow_is_refused(old: Path) -> None:
    with closing(sqlite3.connect(old / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (UNKNOWN,))
    with pytest.raises(UserError, match=rf"mlflow\.db: the tables of a newer MLflow \(schema {UNKNOWN}\)"):
        survey(old)


def test_a_database_in_use_is_not_changed(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_SECONDS", 0.1)
    before = files_of(old)
    with closing(sqlite3.connect(old / "mlflow.db")) as busy:
        busy.execute("BEGIN IMMEDIATE")
        with pytest.raises(StageFailed, match=r"mlflow\.db: database is locked; end the processes that use it"):
            operation.upgrade(old, tmp_path / "saved")
        assert {name for name, body in files_of(old).items() if before[name] != body} == set()
    operation.upgrade(old, tmp_path / "again")
    assert not changes(old)


def test_a_backup_is_never_written_over_another(old: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with pytest.raises(UserError, match="saved: it exists; a backup needs a new folder"):
        operation.upgrade(old, tmp_path / "saved")
    assert changes(old)
