"""A stack's backup brings back what the real schemas of Airflow and MLflow hold; no server but PostgreSQL runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.operations.backup.places import Named, places_of
from pipelines.operations.backup.quiet_postgres import quiet
from pipelines.operations.stack import postgres
from pipelines.operations.stack.settings import Stack
from pipelines.operations.stack.supervisor import launch, shut_down, start_services
from tests.pipelines.operations.backup.conftest import Place


def _present() -> bool:
    try:
        postgres.find_programs()
    except UserError:
        return False
    return True


pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not _present(), reason="no PostgreSQL server on this machine"),
]


def bring_up(stack: Stack) -> None:
    """Start PostgreSQL as `dynamicid stack start` does, and nothing else."""
    stack.state.mkdir(parents=True, exist_ok=True)
    (stack.state / "ports.json").write_text(json.dumps(vars(stack.ports)))
    server = postgres.choose(stack.state)
    environment = {**stack.environment(), **server.environment()}
    settings = stack.root / "docker" / "postgres"
    postgres.initialise(server, settings / "postgresql.conf", environment["POSTGRES_PASSWORD"])
    launch(stack, environment)
    start_services(stack, ("postgres",))
    postgres.wait_ready(server, environment, 60)
    postgres.make_databases(server, settings / "init.sql", environment)


def ledger(stack: Stack) -> str:
    return f"postgresql+psycopg2://mlflow:{stack.environment()['MLFLOW_DB_PASSWORD']}@/mlflow"


@dataclass(frozen=True)
class Lost:
    """A stack that is gone: its backup, the passwords that it had, and a saved run that is gone from the checkout."""

    copy: Path
    passwords: bytes
    saved: str
    said: str


@pytest.fixture(scope="module")
def lost(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Lost:
    stack, copy, saved = place.stack("first"), tmp_path_factory.mktemp("kept") / "copy", "refs/exps/ab/cdef0123/brave"
    bring_up(stack)
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env=stack.environment(), check=True, capture_output=True)
    place.contents(stack, "fill", ledger(stack))
    place.git("update-ref", saved, "HEAD")
    said = place.cli(stack, "backup", "--out", str(copy))
    passwords = (stack.state / "credentials.env").read_bytes()

    running = place.cli(stack, "restore", str(copy), "--force", code=2)
    assert "this stack runs" in running
    assert "`make stack-stop`" in running
    shut_down(stack)
    away = place.cli(stack, "backup", "--out", str(copy.with_name("other")), code=2)
    assert "does not run, so nothing was copied; `make stack` starts it" in away
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]

    shutil.rmtree(stack.state)
    place.git("update-ref", "-d", saved)
    return Lost(copy, passwords, saved, said)


def test_nobody_else_can_read_the_passwords_in_a_backup(lost: Lost) -> None:
    for part in ("mlflow", "accounts", "airflow", "1 artefacts", "credentials.env", "mode 700"):
        assert part in lost.said
    assert lost.copy.stat().st_mode & 0o777 == 0o700
    assert (lost.copy / "credentials.env").stat().st_mode & 0o777 == 0o600


def test_a_lost_stack_comes_back(place: Place, lost: Lost) -> None:
    fresh = place.stack("second")
    assert "`make stack` starts" in place.cli(fresh, "restore", str(lost.copy))
    assert (fresh.state / "credentials.env").read_bytes() == lost.passwords
    assert (fresh.state / "credentials.env").stat().st_mode & 0o777 == 0o600
    refs = place.git("for-each-ref", "--format=%(refname)").split()
    assert refs == [lost.saved, "refs/heads/main", "refs/tags/faces-v1"]
    bring_up(fresh)
    place.contents(fresh, "look", ledger(fresh))
    shut_down(fresh)
    full = place.cli(fresh, "restore", str(lost.copy), code=2)
    assert "databases of mlflow and accounts and airflow hold something already; --force" in full


def test_another_stack_is_replaced_by_force_only(place: Place, lost: Lost) -> None:
    other = place.stack("third")

    def sql(text: str) -> str:
        command = [str(postgres.find_programs() / "psql"), "-Atqc", text, "airflow"]
        done = subprocess.run(command, env=other.environment(), check=True, capture_output=True, text=True)
        return done.stdout.strip()

    bring_up(other)
    sql("create table dag_run (word text)")
    shut_down(other)
    passwords = (other.state / "credentials.env").read_bytes()
    assert "other passwords and keys" in place.cli(other, "restore", str(lost.copy), code=2)
    assert (other.state / "credentials.env").read_bytes() == passwords != lost.passwords
    place.cli(other, "restore", str(lost.copy), "--force")
    assert (other.state / "credentials.env").read_bytes() == lost.passwords
    bring_up(other)  # with the backup's passwords, that of PostgreSQL's superuser among them
    assert sql("select run_id, state from dag_run") == "by-hand|success"

    mixed = places_of(place.checkout, Named(ledger="sqlite:///own.db"), other.state)
    assert (mixed.ledger, mixed.artefacts, mixed.accounts, mixed.served) == ("sqlite:///own.db", None, None, False)
    assert (str(mixed.airflow)[:20], mixed.credentials) == ("postgresql+psycopg2:", other.state / "credentials.env")


def test_a_folder_that_another_postgresql_uses_is_left_alone(place: Place) -> None:
    state = place.stack("fourth").state
    state.mkdir()
    server = postgres.choose(state)
    postgres.initialise(server, place.project / "docker" / "postgres" / "postgresql.conf", "password")
    with quiet(server), pytest.raises(StageFailed, match=r"does not start: .*postmaster"), quiet(server):
        pass
