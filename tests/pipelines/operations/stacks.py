"""Stacks of which only the database runs, and a place for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.operations.stack import postgres
from pipelines.operations.stack.settings import Stack, keep_ports
from pipelines.operations.stack.supervisor import launch, start_services


def _is_missing() -> bool:
    try:
        postgres.find_programs()
    except UserError:
        return True
    return False


needs_postgres = pytest.mark.skipif(_is_missing(), reason="PostgreSQL is missing: apt-get install postgresql")


@contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a folder that the user of PostgreSQL can enter, as it cannot pytest's own."""
    with tempfile.TemporaryDirectory(prefix="dynamicid-stacks-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def bring_up(stack: Stack) -> None:
    """Start the supervisor and PostgreSQL as `dynamicid stack start` does, and nothing else."""
    stack.state.mkdir(parents=True, exist_ok=True)
    keep_ports(stack)
    server = postgres.choose(stack.state)
    environment = {**stack.environment(), **server.environment()}
    settings = stack.root / "docker" / "postgres"
    postgres.initialise(server, settings / "postgresql.conf", environment["POSTGRES_PASSWORD"])
    postgres.remember(stack.state, server)
    launch(stack, environment)
    start_services(stack, ("postgres",))
    postgres.wait_ready(server, environment, 60)
    postgres.make_databases(server, settings / "init.sql", environment)
