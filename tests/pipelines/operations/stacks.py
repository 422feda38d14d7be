"""Stacks of which only PostgreSQL runs, and a folder for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
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
