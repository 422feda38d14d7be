"""Locks between processes, without waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def hold(lock: Path, taken: Exception) -> Iterator[None]:
    """Hold the file `lock` during the block; raise `taken` where another process holds it. Creates its folder."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(lock).acquire(timeout=0)
    except Timeout:
        raise taken from None
    with held:
        yield


def is_held(lock: Path) -> bool:
    """Return whether a process holds the file `lock`; the file is not created."""
    if not lock.is_file():
        return False
    try:
        with FileLock(lock).acquire(timeout=0):
            return False
    except Timeout:
        return True
