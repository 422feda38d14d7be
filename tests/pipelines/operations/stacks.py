"""Stacks of which only PostgreSQL runs, and a folder for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.operations.backup.private_postgres import private_server
from pipelines.operations.stack import postgres


def _is_missing() -> bool:
    try:
        postgres.find_programs()
    except UserError:
        return True
    return False


needs_postgres = pytest.mark.skipif(_is_missing(), reason="PostgreSQL is missing: apt-get install postgresql")


@contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a folder that PostgreSQL's user can enter, which it cannot with pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="dynamicid-stacks-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def own_database(project: Path) -> Iterator[tuple[str, postgres.Postgres, dict[str, str]]]:
    """Yield the address of a PostgreSQL database, its server, and the variables by which its programs reach it."""
    with open_folder() as folder:
        server = postgres.configure(folder)
        postgres.initialise(server, project / "docker" / "postgres" / "postgresql.conf", "password")
        with private_server(server) as variables:
            host, port = variables["PGHOST"], variables["PGPORT"]
            yield f"postgresql://postgres@/postgres?host={host}&port={port}", server, dict(variables)
