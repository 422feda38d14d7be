"""Locks between processes that are had at once or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def hold(lock: Path, taken: Exception) -> Iterator[None]:
    """Hold the file `lock`, whose folder is made, while the block runs; raise `taken` where another process has it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(lock).acquire(timeout=0)
    except Timeout:
        raise taken from None
    with held:
        yield


def is_held(lock: Path) -> bool:
    """Whether a process holds the file `lock`; nothing is made where there is none."""
    if not lock.is_file():
        return False
    try:
        with FileLock(lock).acquire(timeout=0):
            return False
    except Timeout:
        return True
