"""MLflow's database is somebody else's: each fault of it is one line, and what a person did there stays."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.operations.backup.private_postgres import private_server
from pipelines.operations.stack import postgres
from pipelines.registry.registry import champion_of, find_version, open_registry, versions_of
from pipelines.registry.runs import open_run
from pipelines.registry.server import WAIT_VARIABLE
from pipelines.registry.settings import EXPERIMENT, database
from tests.pipelines.operations.stacks import needs_postgres, open_folder
from tests.processes import PROJECT, dynamicid, run

_FIRST = """
import sys
from pathlib import Path
from pipelines.registry.registry import open_registry
print(open_registry(Path(sys.argv[1])).experiment_id())
"""


def change(root: Path, *statements: str) -> None:
    """Change the tables behind MLflow's back."""
    with closing(sqlite3.connect(database(root))) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def at_once(root: Path, count: int) -> list[tuple[int, str]]:
    """Let `count` processes use the database of `root` first; return their exit codes and last lines."""
    command = [sys.executable, "-c", _FIRST, str(root)]
    started = [
        subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(count)
    ]
    printed = [process.communicate(timeout=600)[0] for process in started]
    return [(process.returncode, text.strip()[-300:]) for process, text in zip(started, printed, strict=True)]


def test_two_first_writers_make_one_database(tmp_path: Path) -> None:
    assert at_once(tmp_path, 2) == [(0, "1")] * 2
    left = sorted(path.name for path in tmp_path.iterdir() if ".part" in path.name)
    assert left == [], "the half-made file is gone"


@pytest.mark.nightly
@needs_postgres
def test_postgresql_with_four_first_writers_that_goes_away_in_between(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drops the connections, which are made again, and at last it stops."""
    with open_folder() as folder:
        server = postgres.configure(folder)
        postgres.initialise(server, project / "docker" / "postgres" / "postgresql.conf", "password")
        with private_server(server) as environment:
            host = environment["PGHOST"]
            uri = f"postgresql+psycopg2://postgres@/postgres?host={host}&port={environment['PGPORT']}"
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            assert at_once(folder, 4) == [(0, "1")] * 4
            client = open_registry(folder)
            client.create_registered_model("dynamicid")
            session = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            dropped = run(server.programs / "psql", "-Atqc", session, "-U", "postgres", "postgres", env=environment)
            assert "t" in dropped.stdout
            client.set_registered_model_tag("dynamicid", "a", "b")
            assert client.get_registered_model("dynamicid").tags == {"a": "b"}
        monkeypatch.setenv(WAIT_VARIABLE, "2")
        with pytest.raises(StageFailed, match=r"no answer in 2 s \("):
            client.get_registered_model("dynamicid")


@pytest.mark.nightly
def test_four_first_writers_six_times(tmp_path: Path) -> None:
    ended = [at_once(tmp_path / str(number), 4) for number in range(6) if not (tmp_path / str(number)).mkdir()]
    assert ended == [[(0, "1")] * 4] * 6


@pytest.mark.parametrize("left", ["empty file", "half-made tables"])
def test_a_first_writer_that_was_killed_leaves_nothing_in_the_way(tmp_path: Path, left: str) -> None:
    if left == "empty file":
        database(tmp_path).touch()
    else:
        change(tmp_path, "CREATE TABLE experiments (experiment_id INTEGER)", "CREATE TABLE runs (run_uuid TEXT)")
    (tmp_path / "mlflow.db.0.part").write_text("of a killed process")
    assert open_registry(tmp_path).experiment_id() == "1"
    assert not (tmp_path / "mlflow.db.0.part").exists()


def test_a_deleted_experiment_stays_deleted_and_its_registry_readable(mlflow_checkout: Path, compared: Any) -> None:
    compared(None)
    client = open_registry(mlflow_checkout)
    number = client.experiment_id()
    client.delete_experiment(number)
    again = open_registry(mlflow_checkout)
    expected = rf"somebody deleted the experiment {EXPERIMENT}.*mlflow experiments restore --experiment-id {number}"
    with pytest.raises(UserError, match=expected), open_run(again, "one", {}):
        pass
    assert again.get_experiment_by_name(EXPERIMENT).lifecycle_stage == "deleted"
    assert str(find_version(again, "models:/dynamicid/1").version) == "1"
    done = dynamicid("lineage", "models:/dynamicid/1", cwd=mlflow_checkout, without=("MLFLOW", "DYNAMICID"))
    assert "models:/dynamicid/1" in done.stderr


def test_a_version_made_by_somebody_else_can_be_champion_and_be_compared(mlflow_checkout: Path) -> None:
    """As through MLflow's own page: none of the project's tags."""
    client = open_registry(mlflow_checkout)
    client.create_registered_model("dynamicid")
    client.create_model_version("dynamicid", mlflow_checkout.as_uri())
    client.set_registered_model_alias("dynamicid", "champion", "1")
    assert str(champion_of(client, "dynamicid").version) == "1"
    assert versions_of(client, "dynamicid")[0].tags == {}


FAULTS = {
    "an older MLflow": ("an older MLflow", "UPDATE alembic_version SET version_num = '451aebb31d03'"),
    "an older MLflow without newer tables": (
        "an older MLflow",
        "UPDATE alembic_version SET version_num = '451aebb31d03'",
        "DROP TABLE webhooks",
    ),
    "a newer MLflow": ("a newer MLflow than", "UPDATE alembic_version SET version_num = 'ffffffffffff'"),
    "another program": ("none of MLflow's", "DELETE FROM alembic_version"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_tables_of_another_mlflow_are_refused_and_left_alone(mlflow_checkout: Path, kind: str) -> None:
    expected, *statements = FAULTS[kind]
    change(mlflow_checkout, *statements)
    before = database(mlflow_checkout).read_bytes()
    with pytest.raises(UserError, match=expected):
        open_registry(mlflow_checkout)
    assert database(mlflow_checkout).read_bytes() == before


def test_a_damaged_database_is_named(mlflow_checkout: Path) -> None:
    database(mlflow_checkout).write_bytes(b"no database" * 1000)
    with pytest.raises(StageFailed, match=r"mlflow\.db: its database is damaged.*`dynamicid restore`"):
        open_registry(mlflow_checkout)


def test_a_database_that_others_lock_is_waited_for(
    mlflow_checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow itself gives up after twenty seconds."""
    client = open_registry(mlflow_checkout)
    monkeypatch.setattr(
        type(client.plain), "set_experiment_tag", _locked(type(client.plain).set_experiment_tag, times=2)
    )
    client.set_experiment_tag(client.experiment_id(), "a", "b")
    assert client.get_experiment(client.experiment_id()).tags["a"] == "b"
    assert "does not answer (database is locked); waiting for it" in capsys.readouterr().err
    monkeypatch.setattr(
        type(client.plain), "set_experiment_tag", _locked(type(client.plain).set_experiment_tag, times=99)
    )
    monkeypatch.setenv(WAIT_VARIABLE, "1")
    with pytest.raises(StageFailed, match=r"no answer in 1 s \(database is locked\)"):
        client.set_experiment_tag(client.experiment_id(), "a", "b")


def _locked(method: Any, times: int) -> Any:
    """Return the method, which fails `times` times as MLflow does at a locked database."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    left = [times]

    def call(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            return method(*arguments)
        locked = OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked"))
        raise MlflowException(message=str(locked)) from locked

    return call


@pytest.mark.nightly
def test_a_real_lock_of_half_a_minute_is_waited_for(mlflow_checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = open_registry(mlflow_checkout)
    number = client.experiment_id()

    def lock() -> None:
        with closing(sqlite3.connect(database(mlflow_checkout))) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(30)
            connection.rollback()

    thread = threading.Thread(target=lock)
    thread.start()
    time.sleep(0.5)
    client.set_experiment_tag(number, "a", "b")
    thread.join()
    assert client.get_experiment(number).tags["a"] == "b"
    assert "database is locked" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write everywhere")
def test_a_database_that_may_not_be_written_is_read_and_named(
    mlflow_checkout: Path, compared: Any, tmp_path: Path
) -> None:
    compared(None)
    script = f"""
import sys
from pathlib import Path
from pipelines.registry.registry import find_version, open_registry
client = open_registry(Path({str(mlflow_checkout)!r}))
print(find_version(client, "models:/dynamicid/1").version)
client.set_model_version_tag("dynamicid", "1", "a", "b")
"""
    with closing(sqlite3.connect(f"file:{database(mlflow_checkout)}?mode=ro", uri=True)):
        read_only = f"sqlite:///file:{database(mlflow_checkout)}?mode=ro&uri=true"
    env = {**os.environ, "MLFLOW_TRACKING_URI": read_only, "PYTHONPATH": str(PROJECT)}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.stdout == "1\n", done.stderr[-2000:]
    assert re.search(r"StageFailed|TrackingFault", done.stderr)
    assert "it cannot be written" in done.stderr.splitlines()[-1]
    assert list(elsewhere.iterdir()) == [], "no folder by the text of the address"
