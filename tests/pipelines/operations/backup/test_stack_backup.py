"""A stack's backup restores databases with the real schemas of Airflow and MLflow; only PostgreSQL runs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.core.errors import StageFailed
from pipelines.operations.backup.locations import Addresses, find_locations
from pipelines.operations.backup.private_postgres import private_server
from pipelines.operations.stack import postgres
from pipelines.operations.stack.settings import Stack
from pipelines.operations.stack.start import start_database
from pipelines.operations.stack.supervisor import shut_down
from tests.pipelines.operations.backup.conftest import Place
from tests.pipelines.operations.stacks import needs_postgres
from tests.processes import git, run

pytestmark = [pytest.mark.nightly, needs_postgres]


def ledger(stack: Stack) -> str:
    return f"postgresql+psycopg2://mlflow:{stack.environment()['MLFLOW_DB_PASSWORD']}@/mlflow"


def is_password_of_mlflow(stack: Stack, password: str) -> bool:
    """Compare `password` with what a stopped stack's PostgreSQL keeps (RFC 5803)."""
    server = postgres.configure(stack.state)
    query = "select rolpassword from pg_authid where rolname = 'mlflow'"
    with private_server(server) as environment:
        kept = run(server.programs / "psql", "-Atqc", query, "-U", "postgres", "postgres", env=environment).stdout
    _, rounds, salt, stored, _ = re.split(r"[$:]", kept.strip())
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
    client = hmac.digest(salted, b"Client Key", "sha256")
    return base64.b64encode(hashlib.sha256(client).digest()).decode() == stored


@dataclass(frozen=True)
class Lost:
    """A deleted stack: its backup, its passwords, a saved run that was deleted, and the output of the backup."""

    copy: Path
    passwords: bytes
    saved: str
    output: str


@pytest.fixture(scope="module")
def lost(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Lost:
    stack, copy, saved = place.stack("first"), tmp_path_factory.mktemp("kept") / "copy", "refs/exps/ab/cdef0123/brave"
    start_database(stack, print)
    run(sys.executable, "-m", "airflow", "db", "migrate", env=stack.environment())
    place.contents(stack, "fill", ledger(stack))
    git(place.checkout, "update-ref", saved, "HEAD")
    output = place.cli(stack, "backup", "--out", str(copy))
    passwords = (stack.state / "credentials.env").read_bytes()

    running = place.cli(stack, "restore", str(copy), "--force", code=2)
    assert "this stack runs" in running
    assert "`make stack-stop`" in running
    shut_down(stack)
    away = place.cli(stack, "backup", "--out", str(copy.with_name("other")), code=2)
    assert "does not run, so nothing was copied; `make stack` starts it" in away
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]

    shutil.rmtree(stack.state)
    git(place.checkout, "update-ref", "-d", saved)
    return Lost(copy, passwords, saved, output)


def test_only_the_owner_can_read_the_passwords_in_a_backup(lost: Lost) -> None:
    for part in ("mlflow", "accounts", "airflow", "1 artefacts", "credentials.env", "mode 700"):
        assert part in lost.output
    assert lost.copy.stat().st_mode & 0o777 == 0o700
    assert (lost.copy / "credentials.env").stat().st_mode & 0o777 == 0o600


def test_a_lost_stack_comes_back(place: Place, lost: Lost) -> None:
    fresh = place.stack("second")
    assert "`make stack` starts" in place.cli(fresh, "restore", str(lost.copy))
    assert (fresh.state / "credentials.env").read_bytes() == lost.passwords
    assert (fresh.state / "credentials.env").stat().st_mode & 0o777 == 0o600
    refs = git(place.checkout, "for-each-ref", "--format=%(refname)").split()
    assert refs == [lost.saved, "refs/heads/main", "refs/tags/faces-v1"]
    start_database(fresh, print)
    place.contents(fresh, "read", ledger(fresh))
    shut_down(fresh)
    full = place.cli(fresh, "restore", str(lost.copy), code=2)
    assert "databases of mlflow and accounts and airflow are not empty; --force" in full


def test_another_stack_is_replaced_by_force_only(place: Place, lost: Lost) -> None:
    other = place.stack("third")

    def sql(text: str) -> str:
        return run(postgres.find_programs() / "psql", "-Atqc", text, "airflow", env=other.environment()).stdout.strip()

    start_database(other, print)
    sql("create table dag_run (word text)")
    shut_down(other)
    passwords = (other.state / "credentials.env").read_bytes()
    assert "passwords and keys differ" in place.cli(other, "restore", str(lost.copy), code=2)
    assert (other.state / "credentials.env").read_bytes() == passwords != lost.passwords
    wrong = f"sqlite:///{lost.copy.with_name('ledger.db')}"
    assert "another kind of database" in place.cli(
        other, "restore", str(lost.copy), "--force", "--ledger", wrong, code=2
    )
    assert (other.state / "credentials.env").read_bytes() == passwords
    assert is_password_of_mlflow(other, other.environment()["MLFLOW_DB_PASSWORD"]), "a refused restore changes none"
    place.cli(other, "restore", str(lost.copy), "--force")
    assert (other.state / "credentials.env").read_bytes() == lost.passwords
    start_database(other, print)  # with the backup's passwords, including that of PostgreSQL's superuser
    assert sql("select run_id, state from dag_run") == "by-hand|success"

    mixed = find_locations(place.checkout, Addresses(ledger="sqlite:///own.db"), other.state)
    assert (mixed.ledger, mixed.artefacts, mixed.accounts, mixed.served) == ("sqlite:///own.db", None, None, False)
    assert (str(mixed.airflow)[:20], mixed.credentials) == ("postgresql+psycopg2:", other.state / "credentials.env")


def test_a_data_folder_in_use_by_another_postgresql_is_refused(place: Place) -> None:
    state = place.stack("fourth").state
    state.mkdir()
    server = postgres.configure(state)
    postgres.initialise(server, place.project / "docker" / "postgres" / "postgresql.conf", "password")
    with (
        private_server(server),
        pytest.raises(StageFailed, match=r"does not start: .*postmaster"),
        private_server(server),
    ):
        pass
