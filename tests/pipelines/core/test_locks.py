"""A lock is held by one process alone or by several together, never both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core import locks
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import IN_USE, LOCKS_VARIABLE, WORKSPACE, hold, hold_everywhere, is_held, share, staying
from pipelines.operations.stack import postgres
from tests.pipelines.operations.stacks import needs_postgres, own_database
from tests.processes import run

TAKEN = RuntimeError("taken")


def test_several_share_a_lock_and_keep_others_from_holding_it_alone(tmp_path: Path) -> None:
    lock, first = tmp_path / "state" / ".lock", []
    with share(lock, TAKEN, alone=lambda: first.append("one")):
        with share(lock, TAKEN, alone=lambda: first.append("other")):
            assert is_held(lock)
            with pytest.raises(RuntimeError, match="taken"), hold(lock, TAKEN):
                pass
        assert is_held(lock)
    assert first == ["one"], "only who finds nobody there may remove what killed writers left"
    assert not is_held(lock)
    with hold(lock, TAKEN):
        pass


def test_a_command_in_a_workspace_keeps_others_from_removing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_MOMENT", 0.05)
    with staying(tmp_path):
        assert list(tmp_path.iterdir()) == [], "a checkout is none"
    (tmp_path / WORKSPACE).parent.mkdir()
    (tmp_path / WORKSPACE).touch()
    with staying(tmp_path), staying(tmp_path):
        assert is_held(tmp_path / IN_USE)
    removing = hold(tmp_path / IN_USE, TAKEN)
    with removing, pytest.raises(StageFailed, match="`dynamicid clean` is removing this workspace"), staying(tmp_path):
        pass


def test_who_holds_it_alone_is_waited_for_a_moment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_MOMENT", 0.05)
    lock = tmp_path / ".lock"
    with hold(lock, TAKEN), pytest.raises(RuntimeError, match="taken"), share(lock, TAKEN):
        pass
    with share(lock, TAKEN):
        pass


def test_without_postgresql_a_lock_of_all_machines_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOCKS_VARIABLE, raising=False)
    lock = tmp_path / "state" / "register.lock"
    with hold_everywhere(lock, 1.0, TAKEN):
        assert is_held(lock)
        with pytest.raises(RuntimeError, match="taken"), hold_everywhere(lock, 0.0, TAKEN):
            pass
    with hold_everywhere(lock, 0.0, TAKEN):
        pass


@pytest.mark.parametrize("address", ["not an address", "mysql://user:secret@host/locks", "sqlite:///secret.db"])
def test_an_address_that_is_none_of_postgresql_is_refused_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv(LOCKS_VARIABLE, address)
    lock, expected = tmp_path / "register.lock", f"{LOCKS_VARIABLE}: expected postgresql://"
    with pytest.raises(UserError, match=expected) as caught, hold_everywhere(lock, 1.0, TAKEN):
        pass
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg2")
    monkeypatch.setenv(LOCKS_VARIABLE, "postgresql://user:secret@127.0.0.1:1/locks")
    lock, expected = tmp_path / "register.lock", r"127\.0\.0\.1:1/locks: .*refused.*; run again when it answers"
    with pytest.raises(StageFailed, match=expected) as caught, hold_everywhere(lock, 1.0, TAKEN):
        pass
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def database(project: Path) -> Iterator[tuple[str, postgres.Postgres, dict[str, str]]]:
    """Yield the address of a database, its server, and the variables by which its programs reach it."""
    with own_database(project) as made:
        yield made


@needs_postgres
def test_in_postgresql_machines_without_a_common_disk_hold_a_lock_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: tuple[str, postgres.Postgres, dict[str, str]]
) -> None:
    monkeypatch.setenv(LOCKS_VARIABLE, database[0])
    one, other = tmp_path / "one" / "register.lock", tmp_path / "other" / "register.lock"
    with hold_everywhere(one, 1.0, TAKEN):
        with pytest.raises(RuntimeError, match="taken"), hold_everywhere(other, 0.1, TAKEN):
            pass
        with hold_everywhere(other.with_name("record-evaluate.lock"), 1.0, TAKEN):  # another lock
            pass
    with hold_everywhere(other, 1.0, TAKEN):
        pass
    with pytest.raises(ValueError, match="in the block"), hold_everywhere(one, 1.0, TAKEN):
        raise ValueError("in the block")
    with hold_everywhere(other, 1.0, TAKEN):
        pass


@needs_postgres
def test_a_lock_whose_connection_was_lost_is_free_and_its_holder_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: tuple[str, postgres.Postgres, dict[str, str]]
) -> None:
    address, server, variables = database
    monkeypatch.setenv(LOCKS_VARIABLE, address)
    lock, entered = tmp_path / "register.lock", []
    end = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and query ~ 'advisory'"

    def lose() -> None:
        with hold_everywhere(lock, 1.0, TAKEN):
            run(server.programs / "psql", "-Atqc", end, "-U", "postgres", "postgres", env=variables)
            with hold_everywhere(lock, 10.0, TAKEN):
                entered.append("another machine")

    with pytest.raises(StageFailed, match=r"the lock register\.lock was lost"):
        lose()
    assert entered
